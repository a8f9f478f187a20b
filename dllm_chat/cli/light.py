"""`dllm light proxy|sync|status|trust|verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dllm_chat.cli.command import AsJson, command, group
from dllm_chat.cli.output import Report
from dllm_protocol.errors import UsageRefused

app = group(
    """Your own check of the chain: what is verified, why something was not, and a door for other programs.

    \b
      dllm light status
      dllm light sync
      dllm light verify HEIGHT
      dllm light verify --tx HASH
      dllm light proxy
      dllm light trust refresh
    """
)


@command(app, "status")
async def status(
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask nobody: show what this home trusts.")
    ] = False,
) -> Report:
    """What is verified, who was asked, what was refused.

    Verified height and header, how far behind, how old the trust is and how long it lasts, the nodes and what
    was wrong with them.
    """
    from dllm_chat.cli.lights import show_status

    return await show_status(offline=offline)


@command(app, "sync")
async def sync(
    height: Annotated[int, typer.Option(min=0, help="Verify this height; the newest when 0.")] = 0,
) -> Report:
    """Verify the chain up to its newest header, and remember it."""
    from dllm_chat.cli.lights import run_sync

    return await run_sync(height)


@command(app, "verify")
async def verify(
    at_height: Annotated[
        int, typer.Argument(min=0, metavar="HEIGHT", help="As --height.", show_default=False)
    ] = 0,
    height: Annotated[
        int, typer.Option(min=0, help="Verify a header; with --key: the state after this block.")
    ] = 0,
    hash: Annotated[str, typer.Option(metavar="HASH", help="The header's hash that you were told.")] = "",
    tx: Annotated[str, typer.Option(metavar="HASH", help="Verify that a transaction is in a block.")] = "",
    key: Annotated[str, typer.Option(help="Verify a key of the state, as text or as 0x and hex.")] = "",
) -> Report:
    """Verify a header, a transaction or a key, with its proofs.

    The chain of proofs is printed, from the trust root to what was asked.
    """
    from dllm_chat.cli.light_verifying import verify_one

    if at_height and height not in (0, at_height):
        raise UsageRefused(
            f"two heights are named, {at_height} and {height}", hint="name one: dllm light verify HEIGHT"
        )
    return await verify_one(height=height or at_height, header_hash=hash, tx=tx, key=key)


@command(app, "proxy")
async def proxy(
    listen: Annotated[
        str, typer.Option(help="HOST:PORT on this machine; port 0 lets the system choose.")
    ] = "127.0.0.1:8888",
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that callers must send; made when missing.")
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin of web pages that may call, for example http://localhost:3000."),
    ] = None,
    metrics_listen: Annotated[
        str, typer.Option(help="HOST:PORT on this machine for Prometheus' metrics; empty = none.")
    ] = "",
) -> Report:
    """Serve a node's JSON-RPC with every answer verified.

    Callers send the token as Authorization: Bearer TOKEN, or as the password in http://any:TOKEN@HOST:PORT.
    What no header proves (peers, mempools, events) is refused or left empty.
    """
    from dllm_chat.cli.light_proxying import serve

    return await serve(listen, token_file, origin or [], metrics_listen)


trust_app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    help="What this home trusts; renew it once it is too old.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(trust_app, name="trust")


@trust_app.callback()
def trust(ctx: typer.Context, as_json: AsJson = False) -> Report | None:
    """The trust root, whose word it is, and how long it lasts."""
    if ctx.invoked_subcommand is not None:
        return None
    from dllm_chat.cli.light_trust import show_trust

    return show_trust()


@command(trust_app, "refresh")
async def refresh(
    source: Annotated[
        list[str] | None,
        typer.Option(help="ws://HOST:PORT/websocket of a node to ask; two that are not the same."),
    ] = None,
    height: Annotated[
        int, typer.Option(min=0, help="Height of the new root; the newest that both have when 0.")
    ] = 0,
    hash: Annotated[
        str,
        typer.Option(
            metavar="HASH", help="Its header hash as you know it from elsewhere, instead of being asked."
        ),
    ] = "",
    unlinked: Annotated[
        bool,
        typer.Option("--unlinked", help="Give up the link to what was trusted; needs --height and --hash."),
    ] = False,
) -> Report:
    """Take a new trust root after the old one expired.

    Two nodes that are not the same must show one header, and you compare its hash with a third place.
    The new root must lead back to what was trusted. Where no node has the headers in between any more,
    --unlinked begins anew: then the comparison is all that stands between you and a made-up chain.
    """
    from dllm_chat.cli.light_trust import refresh_trust

    return await refresh_trust(source or [], height, hash, unlinked=unlinked)
