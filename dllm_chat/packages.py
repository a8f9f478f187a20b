"""Packages of models, by way of the worker's program: cutting and checking models is its room, started as a process."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dllm_chat.sanitize import clean_line
from dllm_chat.serving_checks import require_worker_extra
from dllm_protocol.errors import DllmError

MANIFEST_FILE = "manifest"
MAX_ANSWER_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 16
_CODE = re.compile(r"E_[A-Z_]{1,40}")


class PackagerFailed(DllmError):
    """The worker's program ended without an answer."""

    code = "E_PACKAGER"


def is_a_file(text: str) -> bool:
    """Whether a file of that name is there."""
    return Path(text).is_file()


def names_a_package(text: str) -> bool:
    """Whether somebody who typed this means a package's folder, not a registered model: models' names have no
    slashes, and a folder of that name beside us counts if it has a manifest.
    """
    return "/" in text or (Path(text) / MANIFEST_FILE).is_file()


async def run_packager(words: Sequence[str], on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Run ``dllm-worker model`` and return its data.

    Args:
        words: the command and its arguments, ``--json`` among them.
        on_progress: called with each line that it says meanwhile.

    Raises:
        ClientOnly: what that program needs is not installed.
        PackagerFailed: no answer, or one of the program's own errors under its own code and exit code.
    """
    require_worker_extra()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local_worker.package_commands", *words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        limit=MAX_LINE_BYTES,
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        out, last = await asyncio.gather(_all_of(process.stdout), _follow(process.stderr, on_progress))
        exit_code = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return _answer(out, exit_code, last)


async def serve_packages(
    words: Sequence[str],
    on_ready: Callable[[dict[str, Any]], None],
    on_progress: Callable[[str], None],
    told: asyncio.Event,
) -> None:
    """Run a command of ``dllm-worker model`` that goes on until it is told to stop.

    Args:
        on_ready: called with its data, once it serves.
        told: set when it is to stop.

    Raises:
        As `run_packager`.
        PackagerFailed: it ended by itself.
    """
    require_worker_extra()
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "local_worker.package_commands",
            words[0],
            "--lifeline",
            "--json",
            *words[1:],
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        limit=MAX_ANSWER_BYTES,
        # A terminal's Ctrl-C is for us, who then tell it.
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    following = asyncio.create_task(_follow(process.stderr, on_progress))
    stopping = asyncio.create_task(told.wait())
    ending = asyncio.create_task(process.wait())
    try:
        line = await process.stdout.readline()
        if not line or not line.startswith(b'{"ok": true'):
            exit_code = await ending
            _answer(line, exit_code, await following)
        on_ready(_answer(line, 0, ""))
        await asyncio.wait((stopping, ending), return_when=asyncio.FIRST_COMPLETED)
        if not told.is_set():
            raise PackagerFailed(
                f"the worker's program ended with {await ending}: {await following or 'no word'}"
            )
    finally:
        stopping.cancel()
        process.stdin.close()
        await ending
        await following


async def _all_of(stream: asyncio.StreamReader) -> bytes:
    """Everything up to the end; what goes beyond the longest answer is thrown away, so that nobody waits for us."""
    out = bytearray()
    while data := await stream.read(MAX_LINE_BYTES):
        out += data[: MAX_ANSWER_BYTES - len(out)]
    return bytes(out)


async def _follow(lines: asyncio.StreamReader, on_progress: Callable[[str], None]) -> str:
    """Hand on each line; returns the last one."""
    last = ""
    while True:
        try:
            raw = await lines.readline()
        except ValueError:  # longer than any line of ours: that part of it is left out
            continue
        if not raw:
            return last
        last = clean_line(raw.decode(errors="replace").strip())
        if last:
            on_progress(last)


def _answer(out: bytes, exit_code: int, last: str) -> dict[str, Any]:
    try:
        envelope = json.loads(out)
        if envelope["ok"]:
            return dict(envelope["data"])
        error = envelope["error"]
        code, message, hint = str(error["code"]), str(error["message"]), str(error["hint"])
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise PackagerFailed(
            f"the worker's program ended with {exit_code} and no answer: {last or 'it said nothing'}",
            hint="is the extra `worker` installed? make setup",
        ) from problem
    if not _CODE.fullmatch(code):
        code = PackagerFailed.code
    kind = type("PackagerRefused", (PackagerFailed,), {"code": code, "exit_code": exit_code or 1})
    raise kind(message, hint=hint)
