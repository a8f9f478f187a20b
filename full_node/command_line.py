"""What the commands of `dllm-node` share: options, addresses to listen on, and how an outcome is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

import typer

from dllm_protocol.errors import DllmError, UsageRefused
from full_node.rpc.guard import LOOPBACK_NAMES, Door

Home = Annotated[Path, typer.Option(help="The node's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def report(work: Callable[[], dict[str, Any]], as_json: bool, words: Callable[[dict[str, Any]], str]) -> None:
    """Does the work and tells what came of it: words, or one JSON object; failures with their exit codes."""
    try:
        data = work()
    except DllmError as error:
        if as_json:
            body = {"code": error.code, "message": error.message, "hint": error.hint}
            typer.echo(json.dumps({"ok": False, "error": body}))
        else:
            typer.echo(f"dllm-node: {error.message}", err=True)
            if error.hint:
                typer.echo(f"  {error.hint}", err=True)
        raise typer.Exit(error.exit_code) from error
    if as_json:
        typer.echo(json.dumps({"ok": True, "data": data}))
    elif said := words(data):
        typer.echo(said)


def door_of(listen: str, token_file: Path | None = None, *, option: str = "--rpc-listen") -> Door:
    """Where to listen. Raises UsageRefused for an address or a token file that cannot be used."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise UsageRefused(f"{option} is HOST:PORT, got {listen!r}")
    try:
        on_loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        on_loopback = False
    token = _token(token_file) if token_file is not None else ""
    return Door(host, int(port), token, LOOPBACK_NAMES if on_loopback else None)


def _token(path: Path) -> str:
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise UsageRefused(f"{path} cannot be read: {error.strerror}") from error
    if not token or not token.isascii():
        raise UsageRefused(f"{path} holds no token: one line of ASCII is wanted")
    return token
