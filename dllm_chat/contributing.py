"""The contribute-GPU toggle: register a worker under the person's account, start it, stop it, say how it does."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dllm_chat.config import Config
from dllm_chat.paths import make_private_folder, write_private
from dllm_chat.sanitize import clean_line
from dllm_chat.serving_bond import missing_on_chain
from dllm_chat.serving_checks import check_serving, require_worker_extra
from dllm_chat.serving_from import ServingFrom
from dllm_chat.serving_pieces import ServingPieces
from dllm_chat.serving_process import OwnProcess, SupervisedProcess, WorkerProcess, runs
from dllm_chat.serving_watch import PROBLEM_CHARACTERS_MAX, WorkerFailed, WorkerWatch
from dllm_chat.session.events import ServedSlice, WorkerStatus
from dllm_protocol.address import encode_address
from dllm_protocol.bundle import NetworkBundle, SignedBundle
from dllm_protocol.errors import TimedOut
from light_node.relay.urls import relay_url

if TYPE_CHECKING:
    from dllm_chat.embedded.door import EmbeddedLease
    from dllm_chat.session.conversation import Chain
    from dllm_chat.wallet.open_wallet import OpenWallet

STATUS_FILE = "status.json"
ENDPOINTS_MAX = 8
"""As a provider's record bounds them."""
MAX_SLICES = 16
INIT_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
_POLL_S = 0.1
_OFF = WorkerStatus(False, "off", "", "", 0, 0.0, 0, "")


class Contributing:
    """One home's worker. On the embedded network the supervisor runs it; else it runs on its own."""

    def __init__(
        self, home: Path, lease: EmbeddedLease | None, wallet: OpenWallet | None, config: Config
    ) -> None:
        self._home = home
        self._lease = lease
        self._wallet = wallet
        self._config = config
        self._process: WorkerProcess | None = None
        self._starting = asyncio.Lock()

    async def start(
        self,
        chain: Chain,
        bundle: NetworkBundle,
        model_file: Path | None,
        server: ServingFrom | None = None,
        pieces: ServingPieces | None = None,
    ) -> None:
        """Start the worker; where its provider is new, register that under our account once the model has loaded.

        A model in pieces is registered first: what there is to load, others say on the chain.

        Args:
            server: computes the rows in the worker's place.
            pieces: a model in pieces that is served instead of a file; not on the embedded network.

        Raises:
            WalletLocked: registering needs the account's own key.
            BadRelayAddress: the relay of the settings is none, or not protected on the way.
            WorkerFailed: it ended before it could serve; nothing was posted for a model that it could not load.
            ClientOnly, NotFound, UsageRefused, NetworkUnreachable, TransactionRefused
        """
        async with self._starting:
            if self.status().running:
                return
            set_file = Path(self._config.model_file) if self._config.model_file and pieces is None else None
            model = model_file or set_file
            relay = relay_url(self._config.relay).url if self._config.relay and self._lease is None else ""
            await check_serving(model, server)
            keys = await worker_keys(self._home)
            missing = await missing_on_chain(chain, bundle, keys, brings_model=model is not None)
            await missing.check(chain)
            load_first = missing.is_new and pieces is None
            if not load_first:
                await missing.send(chain)
            owner = encode_address(chain.prefix, chain.purse.account)
            self._process = self._process_of(bundle, owner, model, server, relay, pieces)
            try:
                await self._bring_up(until_loaded=load_first)
                if load_first:
                    await missing.send(chain)
            except BaseException:
                await self._process.give_up()
                raise

    async def until_serving(self, timeout_s: float) -> WorkerStatus:
        """Wait until the worker serves; where that takes longer it goes on by itself, and the answer is how far it is.

        Raises:
            WorkerFailed: it ended, and why.
        """
        try:
            return await self._watch().until(("serving",), timeout_s)
        except TimedOut:
            return await self._watch().until((), 0.0)

    async def stop(self) -> None:
        """Drain and stop; returns when the process is gone, and with it what was said of a failure."""
        if self._lease is not None:
            await self._lease.request({"op": "worker_off"})
        else:
            await self._stop_own()
        self._forget_failure()

    async def _stop_own(self) -> None:
        pid = self._read_status().get("pid", 0)
        if not isinstance(pid, int) or not runs(self._home, pid):
            return
        os.kill(pid, signal.SIGTERM)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STOP_TIMEOUT_S
        while runs(self._home, pid):
            if loop.time() > deadline:
                raise TimedOut(f"the worker (process {pid}) is still draining after {STOP_TIMEOUT_S:g} s")
            await asyncio.sleep(_POLL_S)

    def status(self) -> WorkerStatus:
        """What the worker last wrote of itself, if it lives, or if it failed and was not told to stop since."""
        found = self._read_status()
        pid = found.get("pid", 0)
        problem = clean_line(str(found.get("problem", "")), PROBLEM_CHARACTERS_MAX)
        if not isinstance(pid, int) or not runs(self._home, pid):
            failed = found.get("state") == "failed"
            return replace(_OFF, state="failed", problem=problem or "the worker failed") if failed else _OFF
        earned = _number(found, "earned_unclaimed_udllm") + _number(found, "claimed_udllm")
        rate = found.get("tokens_per_s", 0.0)
        return WorkerStatus(
            running=True,
            state=clean_line(str(found.get("state", "starting")), 20),
            model=clean_line(str(found.get("model", "")), 64),
            provider=clean_line(str(found.get("provider", "")), 80),
            sessions=_number(found, "sessions"),
            tokens_per_s=float(rate) if isinstance(rate, int | float) else 0.0,
            earned_udllm=earned,
            problem=problem,
            backend=clean_line(str(found.get("backend", "")), 20),
            backend_url=clean_line(str(found.get("backend_url", "")), 512),
            endpoints=_endpoints(found),
            slices=served_slices(found),
        )

    def earned_unclaimed_udllm(self) -> int:
        """Vouchers that the worker holds and has not claimed; its own word, as last written."""
        return _number(self._read_status(), "earned_unclaimed_udllm")

    # -- the process ------------------------------------------------------------------------------------------

    def _process_of(
        self,
        bundle: NetworkBundle,
        owner: str,
        model: Path | None,
        server: ServingFrom | None,
        relay: str,
        pieces: ServingPieces | None,
    ) -> WorkerProcess:
        if self._lease is not None:
            named = str(model.absolute()) if model else ""
            order: dict[str, Any] = {"owner": owner, "model": named}
            return SupervisedProcess(self._lease, order | ({"server": server.request()} if server else {}))
        bundle_file = self._home / "bundle"
        bundle_file.write_bytes(SignedBundle(bundle, b"", b"").encode())
        command = worker_command(
            *(self._home, bundle_file),
            owner=owner,
            model=model,
            server=server,
            relay=relay,
            pieces=pieces,
        )
        return OwnProcess(command, self._home / "logs")

    async def _bring_up(self, *, until_loaded: bool) -> None:
        """Start it, and wait until it speaks for itself, or has loaded its model."""
        watch = self._watch()
        self._forget_failure()
        if watch.process is not None:
            await watch.process.start()
        await watch.until_up()
        if until_loaded:
            await watch.until_loaded()

    def _watch(self) -> WorkerWatch:
        return WorkerWatch(self._process, self.status, self._note_failure, self._home / "worker.log")

    def _forget_failure(self) -> None:
        if self.status().state == "failed":
            self._note_end("stopped", "")

    def _note_failure(self, problem: str) -> None:
        self._note_end("failed", problem)

    def _note_end(self, state: str, problem: str) -> None:
        """Say how it ended, in the place of a worker that writes no more."""
        content = self._read_status() | {"state": state, "problem": problem}
        write_private(self._home / STATUS_FILE, (json.dumps(content) + "\n").encode())

    def _read_status(self) -> dict[str, Any]:
        try:
            found = json.loads((self._home / STATUS_FILE).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def served_slices(status: dict[str, Any]) -> tuple[ServedSlice, ...]:
    """What a worker says in its status file of each of its slices; those that make no sense are left out."""
    said = status.get("slices")
    found = []
    for one in said[:MAX_SLICES] if isinstance(said, list) else []:
        layers = one.get("layers") if isinstance(one, dict) else None
        if isinstance(layers, list) and len(layers) == 2 and all(isinstance(end, int) for end in layers):
            found.append(
                ServedSlice(
                    model=clean_line(str(one.get("model", "")), 64),
                    layers=(layers[0], layers[1]),
                    provider=clean_line(str(one.get("provider", "")), 80),
                    sessions=_number(one, "sessions"),
                )
            )
    return tuple(found)


def worker_command(
    home: Path,
    bundle_file: Path,
    *,
    owner: str = "",
    model: Path | None = None,
    server: ServingFrom | None = None,
    relay: str = "",
    package: Path | None = None,
    pieces: ServingPieces | None = None,
    lifeline: bool = False,
) -> list[str]:
    """Command line of a worker: of a model's file, of a package, or of the model that comes along.

    With a relay's address it listens nowhere else.

    Raises:
        ClientOnly: it could not even begin here.
    """
    require_worker_extra()
    command = [
        sys.executable,
        "-m",
        "local_worker.cli",
        "start",
        "--home",
        str(home),
        "--bundle",
        str(bundle_file),
    ]
    if owner:
        command += ["--owner", owner]
    if pieces is not None:
        command += pieces.options()
    elif package is not None:
        command += ["--package", str(package)]
    else:
        command += ["--model", str(model or packaged_model())]
    if server is not None:
        command += server.options()
    if relay:
        command += ["--relay", relay]
    return [*command, "--lifeline"] if lifeline else command


def packaged_model() -> Path:
    """The model that comes with the worker's package. Found without importing it: this room stays apart.

    Raises:
        WorkerFailed: the worker's package or its model is not installed.
    """
    found = importlib.util.find_spec("local_worker")
    path = Path(found.origin).parent / "models" / "guide.gguf" if found and found.origin else None
    if path is None or not path.is_file():
        raise WorkerFailed("the model in the package is missing", hint="install it again: make setup")
    return path


async def worker_keys(home: Path) -> dict[str, bytes]:
    """Make the worker's home where it is new; return its operator address and public keys.

    Raises:
        WorkerFailed: with what the worker's program said.
    """
    make_private_folder(home)
    verb = "keys" if (home / "keys.json").exists() else "init"
    command = [sys.executable, "-m", "local_worker", verb, "--home", str(home), "--json"]
    return _public_keys(await run_json(command, INIT_TIMEOUT_S))


async def slice_keys(home: Path, slices: int) -> list[dict[str, bytes]]:
    """The same for a worker of several slices: one operator and its keys for each.

    Raises:
        WorkerFailed: with what the worker's program said.
    """
    make_private_folder(home)
    command = [sys.executable, "-m", "local_worker", "init", "--home", str(home), "--json"]
    answer = await run_json([*command, "--slices", str(slices)], INIT_TIMEOUT_S)
    return [_public_keys(one) for one in answer.get("slices", [answer])]


def _public_keys(answer: dict[str, Any]) -> dict[str, bytes]:
    try:
        return {
            "operator": bytes.fromhex(answer["operator"]),
            "service_key": bytes.fromhex(answer["service_key"]),
            "sealing_key": bytes.fromhex(answer["sealing_key"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise WorkerFailed(f"the worker's keys cannot be read: {error}") from error


async def run_json(command: Sequence[str], timeout_s: float) -> dict[str, Any]:
    """Run one of our own programs with --json and return its data.

    Raises:
        ClientOnly: it is the worker's, and what that needs is not installed.
        WorkerFailed: it failed, or took too long.
    """
    if command[2].partition(".")[0] == "local_worker":
        require_worker_extra()
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, errors = await process.communicate()
    except TimeoutError as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise WorkerFailed(f"{command[2]} {command[3]} did not answer within {timeout_s:g} s") from error
    try:
        envelope = json.loads(out)
        if envelope["ok"]:
            return dict(envelope["data"])
        failure = envelope["error"]
    except (ValueError, KeyError, TypeError) as error:
        tail = clean_line(
            errors.decode(errors="replace").strip().splitlines()[-1:][0] if errors.strip() else ""
        )
        raise WorkerFailed(f"{command[2]} failed with code {process.returncode}: {tail}") from error
    raise WorkerFailed(clean_line(str(failure.get("message"))), hint=clean_line(str(failure.get("hint", ""))))


def _endpoints(found: dict[str, Any]) -> dict[str, str]:
    states = found.get("endpoint_states")
    if not isinstance(states, dict):
        return {}
    few = list(states.items())[:ENDPOINTS_MAX]
    return {clean_line(str(endpoint), 200): clean_line(str(state), 200) for endpoint, state in few}


def _number(found: dict[str, Any], name: str) -> int:
    value = found.get(name, 0)
    return value if isinstance(value, int) else 0
