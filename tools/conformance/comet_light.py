"""CometBFT's own light client as a process: `cometbft light` before a full node, and questions to it.

It verifies every header that it is asked about before it answers, so its answers are a second opinion on our chains,
given by an implementation that is not ours.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

START_WAIT_S = 120.0
STOP_WAIT_S = 30.0
ANSWER_WAIT_S = 120.0
_POLL_S = 0.001
_LISTENS = re.compile(rb"Starting RPC HTTP server on ([\d.]+:\d+)")


class LightRefused(Exception):
    """`cometbft light` ended before it served, or refused what it was asked; the message has its own words."""


@dataclass(frozen=True, slots=True)
class LightTarget:
    """What a light client is started with."""

    chain_id: str
    primary: str
    """http:// address of the node that it follows."""
    witnesses: Sequence[str]
    """http:// addresses that it compares with."""
    trust_height: int
    trust_hash: str
    """Upper hex of the header that is trusted to begin with."""
    trusting_period: str = "168h"
    """As Go writes durations."""
    sequential: bool = False
    """Every header in turn instead of skipping."""


class CometLight:
    """A running `cometbft light`; also a context manager."""

    def __init__(self, binary: Path, home: Path, target: LightTarget) -> None:
        """Start it and wait until it serves.

        Args:
            binary: the `cometbft` program.
            home: an empty folder for its store and its log.
            target: chain, nodes and trust root.

        Raises:
            LightRefused: it ended (for example because the trust root is not the primary's).
            TimeoutError: it neither served nor ended.
        """
        home.mkdir(parents=True, exist_ok=True)
        self._log = home / "light.log"
        options = ["--sequential"] if target.sequential else []
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    str(binary), "light", target.chain_id, "--home", str(home / "cometbft"),
                    "--home-dir", str(home / "store"), "--laddr", "tcp://127.0.0.1:0",
                    "--primary", target.primary, "--witnesses", ",".join(target.witnesses),
                    "--height", str(target.trust_height), "--hash", target.trust_hash,
                    "--trusting-period", target.trusting_period, *options,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            self.url = f"http://{self._address()}"
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> CometLight:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        """Everything that it has printed."""
        return self._log.read_text("utf-8", "replace")

    def ask(self, method: str, **params: str) -> Any:
        """One verified answer.

        Raises:
            LightRefused: it could not verify what the primary said.
        """
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"}, method="POST")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=ANSWER_WAIT_S) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as refused:
            answer = json.loads(refused.read())
        if "error" in answer:
            raise LightRefused(f"{method} {params}: {answer['error']}")
        return answer["result"]

    def header_hash(self, height: int) -> str:
        """Upper hex of the header that it has verified at a height. Raises LightRefused."""
        found: str = self.ask("commit", height=str(height))["signed_header"]["commit"]["block_id"]["hash"]
        return found

    def _address(self) -> str:
        deadline = time.monotonic() + START_WAIT_S
        while time.monotonic() < deadline:
            ended = self._process.poll()
            if found := _LISTENS.search(self._log.read_bytes()):
                return found[1].decode()
            if ended is not None:
                raise LightRefused(f"cometbft light ended with status {ended}: {self.log()[-2000:]}")
            time.sleep(_POLL_S)
        raise TimeoutError(f"cometbft light did not serve within {START_WAIT_S:g} s: {self.log()[-2000:]}")
