"""Asking a test network's faucet for tokens. What it says is a stranger's word; the balance proves what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from dllm_chat.sanitize import clean_line
from dllm_protocol.errors import DllmError, NetworkUnreachable, TimedOut, UsageRefused
from light_node.queries import ProvedReads

ANSWER_TIMEOUT_S = 90.0
"""The faucet answers when its payment is proved; others may wait before us."""
PROOF_TIMEOUT_S = 60.0
MAX_ANSWER_BYTES = 64 * 1024
_POLL_S = 0.2


class FaucetRefused(DllmError):
    """The faucet gives nothing now, and why."""

    code = "E_FAUCET"
    exit_code = 5


@dataclass(frozen=True, slots=True)
class Grant:
    """What the faucet says that it gave."""

    tx_hash: str
    height: int
    amount_udllm: int


async def ask_faucet(url: str, address: str) -> Grant:
    """Ask for tokens.

    Args:
        url: ``http://host:port``.
        address: whose account, bech32.

    Raises:
        UsageRefused: not a web address.
        FaucetRefused: its reason.
        NetworkUnreachable, TimedOut
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise UsageRefused(
            f"{clean_line(url, 80)!r} is not a web address", hint="for example http://host:26680"
        )
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.post(url, json={"address": address}, allow_redirects=False) as answer,
        ):
            raw = await _bounded(answer.content)
    except TimeoutError as error:
        raise TimedOut(
            f"the faucet at {clean_line(url, 80)} did not answer in {ANSWER_TIMEOUT_S:g} s"
        ) from error
    except (aiohttp.ClientError, ValueError) as error:
        raise NetworkUnreachable(
            f"the faucet at {clean_line(url, 80)} does not answer: {clean_line(str(error), 120)}",
            hint="is it running? give another one with --url",
        ) from error
    return _granted(raw)


async def until_proved(reads: ProvedReads, account: bytes, at_least_udllm: int) -> int:
    """Wait until the account's proved balance is that; returns it.

    Raises:
        TimedOut: it is not, after a while.
    """
    clock = reads.client.clock
    deadline = clock.monotonic_s() + PROOF_TIMEOUT_S
    while True:
        found = await reads.account(account)
        balance_udllm = found.balance_udllm if found else 0
        if balance_udllm >= at_least_udllm:
            return balance_udllm
        if clock.monotonic_s() >= deadline:
            raise TimedOut(
                f"the proved balance is {balance_udllm} udllm after {PROOF_TIMEOUT_S:g} s, "
                f"the faucet's word makes it {at_least_udllm}",
                hint="dllm wallet balance shows it when it comes",
            )
        await clock.sleep(_POLL_S)


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    """Everything, up to the limit."""
    raw = b""
    async for piece in content.iter_any():
        raw += piece
        if len(raw) > MAX_ANSWER_BYTES:
            raise NetworkUnreachable(f"the faucet's answer has more than {MAX_ANSWER_BYTES} bytes")
    return raw


def _granted(raw: bytes) -> Grant:
    try:
        found: Any = json.loads(raw)
        if found["ok"] is True:
            data = found["data"]
            grant = Grant(str(data["tx_hash"]), int(data["height"]), int(data["amount_udllm"]))
            if grant.amount_udllm > 0:
                return Grant(clean_line(grant.tx_hash, 64), grant.height, grant.amount_udllm)
            raise ValueError("it gave nothing")
        error = found["error"]
        message, hint = clean_line(str(error["message"])), clean_line(str(error.get("hint", "")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise NetworkUnreachable("whatever answers there is no faucet", hint="check the address") from problem
    raise FaucetRefused(f"the faucet gives nothing: {message}", hint=hint)
