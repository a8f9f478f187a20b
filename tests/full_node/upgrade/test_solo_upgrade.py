"""The documented way to other rules, walked by real processes on the solo engine."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dllm_protocol import state_keys
from dllm_protocol.json_shape import to_hex
from dllm_protocol.params import Params
from dllm_protocol.records import Account, AppVersion
from tests.full_node.processes import NODE, NodeProcess, Sender, call, init_with, send_and_wait
from tests.full_node.upgrade.new_program import ADDED_WINDOW_MS

PROGRAM = Path(__file__).with_name("new_program.py")
HALT = 6
TIMEOUT_S = 120


@pytest.fixture
def at_the_end() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _new_program(chain_id: str, height: int) -> list[str]:
    return [sys.executable, str(PROGRAM), chain_id, str(height)]


def _fails(program: list[str], home: Path, *arguments: str) -> tuple[int, str]:
    """Runs `start` to the end that it must come to by itself."""
    done = subprocess.run(
        [*program, "start", "--home", str(home), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stderr


def _start(at_the_end: ExitStack, home: Path, *arguments: str, program: list[str] = NODE) -> NodeProcess:
    node = NodeProcess.start(home, *arguments, program=program)
    at_the_end.callback(node.end)
    return node


async def _value(http: aiohttp.ClientSession, url: str, key: bytes) -> bytes:
    answer = await call(http, url, "abci_query", path="/key", data=key.hex())
    return base64.b64decode(answer["response"]["value"] or "")


async def _header(http: aiohttp.ClientSession, url: str, height: int) -> dict[str, Any]:
    async with asyncio.timeout(TIMEOUT_S):
        while int((await call(http, url, "status"))["sync_info"]["latest_block_height"]) < height:  # noqa: ASYNC110 - the height is another process's
            await asyncio.sleep(0.05)
    header: dict[str, Any] = (await call(http, url, "block", height=str(height)))["block"]["header"]
    return header


async def test_a_solo_chain_goes_on_under_other_rules(tmp_path: Path, at_the_end: ExitStack) -> None:
    home = tmp_path / "node"
    sender, recipient = Sender.numbered(5), Sender.numbered(6)
    chain_id = init_with(home, [sender])
    new = _new_program(chain_id, HALT)

    old = _start(at_the_end, home)
    async with aiohttp.ClientSession() as http:
        await send_and_wait(http, old.url, sender.transfer(recipient.address, 1))
        epoch_ms = Params.decode(await _value(http, old.url, state_keys.PARAMS)).epoch_ms
    assert old.stop() == 0

    code, said = _fails(new, home)
    assert (code, f"takes over after height {HALT}" in said) == (2, True), said

    old = _start(at_the_end, home, "--halt-height", str(HALT))
    async with aiohttp.ClientSession() as http:
        while old.process.poll() is None:
            try:
                await send_and_wait(http, old.url, sender.transfer(recipient.address, 2))
            except (aiohttp.ClientError, AssertionError):
                break  # it has halted, or is about to
    assert old.close() == 10
    mark = json.loads((home / "halted.json").read_text())
    assert (mark["height"], mark["app_version"]) == (HALT, 0)

    code, said = _fails(NODE, home)
    assert (code, f"halted after height {HALT} for another program" in said) == (2, True), said
    code, said = _fails(NODE, home, "--halt-height", str(HALT))
    assert (code, mark["app_hash"] in said) == (10, True), said
    code, said = _fails(_new_program("another-00000000", HALT), home)
    assert (code, "knows no way from version 0" in said) == (2, True), said

    upgraded = _start(at_the_end, home, program=new)
    async with aiohttp.ClientSession() as http:
        account = await call(http, upgraded.url, "abci_query", path="/key", data=_key(sender))
        sender.sequence = _sequence(account)
        done = await send_and_wait(http, upgraded.url, sender.transfer(recipient.address, 3))
        assert (done["tx_result"]["code"], int(done["height"]) > HALT) == (0, True)
        # Block HALT + 1 begins over the state that the old program left, and carries it over.
        first, second = [await _header(http, upgraded.url, HALT + ahead) for ahead in (1, 2)]
        assert first["app_hash"] == mark["app_hash"]
        assert first["version"].get("app", "0") == "0"
        assert second["version"]["app"] == "1"
        assert AppVersion.decode(await _value(http, upgraded.url, state_keys.APP_VERSION)) == AppVersion(1)
        params = Params.decode(await _value(http, upgraded.url, state_keys.PARAMS))
        assert params.epoch_ms == epoch_ms + ADDED_WINDOW_MS
    assert upgraded.stop() == 0
    assert not (home / "halted.json").exists()

    code, said = _fails(NODE, home)
    assert (code, "app version 1, this program runs 0" in said) == (2, True), said
    again = _start(at_the_end, home, program=new)
    assert again.stop() == 0


async def test_the_old_program_can_be_told_to_go_on_and_is_then_too_late_for_the_upgrade(
    tmp_path: Path, at_the_end: ExitStack
) -> None:
    home = tmp_path / "node"
    chain_id = init_with(home, [])
    code, said = _fails(NODE, home, "--halt-height", "1")
    assert code == 10, said
    onward = _start(at_the_end, home, "--past-halt")
    async with aiohttp.ClientSession() as http:
        await _header(http, onward.url, 2)
    assert onward.stop() == 0
    code, said = _fails(_new_program(chain_id, 1), home)
    assert (code, "the old program went past it" in said) == (2, True), said


def _key(sender: Sender) -> str:
    return to_hex(state_keys.account(sender.address))


def _sequence(answer: dict[str, Any]) -> int:
    return Account.decode(base64.b64decode(answer["response"]["value"])).sequence
