"""The contribute-GPU toggle: register a worker under the person's account, start it, stop it, say how it does."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dllm_chat.config import Config
from dllm_chat.dispatch.purse import WalletPurse
from dllm_chat.paths import make_private_folder
from dllm_chat.sanitize import clean_line
from dllm_chat.serving_from import ServingFrom
from dllm_chat.serving_pieces import ServingPieces
from dllm_chat.session.events import ServedSlice, WorkerStatus
from dllm_protocol.actions import RegisterProvider, Transfer
from dllm_protocol.address import encode_address, provider_id_of
from dllm_protocol.bundle import NetworkBundle, SignedBundle
from dllm_protocol.encoding import Record
from dllm_protocol.errors import DllmError, NotFound, TimedOut, WalletLocked
from dllm_protocol.receipt import BADGE_LOCAL
from light_node.relay.urls import relay_url

if TYPE_CHECKING:
    from dllm_chat.embedded.door import EmbeddedLease
    from dllm_chat.session.conversation import Chain
    from dllm_chat.wallet.open_wallet import OpenWallet

OPERATOR_MONEY_UDLLM = 1_000_000
"""What a new worker's operator account is given for its fees."""
UNKNOWN_ENDPOINT = "ws://127.0.0.1:1"
"""Stands in the registration until the worker listens and updates it."""
STATUS_FILE = "status.json"
LOCK_FILE = "lock"
"""Held by a worker that runs, see `dllm-worker`."""
ENDPOINTS_MAX = 8
"""As a provider's record bounds them."""
MAX_SLICES = 16
INIT_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
_OFF = WorkerStatus(False, "off", "", "", 0, 0.0, 0, "")


class WorkerFailed(DllmError):
    """The worker could not be prepared or started."""

    code = "E_WORKER"


class Contributing:
    """One home's worker. On the embedded network the supervisor runs it; else it runs on its own."""

    def __init__(
        self, home: Path, lease: EmbeddedLease | None, wallet: OpenWallet | None, config: Config
    ) -> None:
        self._home = home
        self._lease = lease
        self._wallet = wallet
        self._config = config

    async def start(
        self,
        chain: Chain,
        bundle: NetworkBundle,
        model_file: Path | None,
        server: ServingFrom | None = None,
        pieces: ServingPieces | None = None,
    ) -> None:
        """Register the worker's provider under our account where it is new, then start the worker.

        Args:
            server: computes the rows in the worker's place.
            pieces: a model in pieces that is served instead of a file; not on the embedded network.

        Raises:
            WalletLocked: registering needs the account's own key.
            BadRelayAddress: the relay of the settings is none, or not protected on the way.
            WorkerFailed, TransactionRefused, UsageRefused
        """
        if self.status().running:
            return
        relay = relay_url(self._config.relay).url if self._config.relay and self._lease is None else ""
        set_file = Path(self._config.model_file) if self._config.model_file and pieces is None else None
        model = model_file or set_file
        if model is not None and not model.is_file():
            raise NotFound(
                f"there is no model file {model}", hint="dllm model found lists what this machine has"
            )
        keys = await worker_keys(self._home)
        await self._register(chain, bundle, keys, brings_model=model is not None)
        owner = encode_address(chain.prefix, chain.purse.account)
        if self._lease is not None:
            named = str(model.absolute()) if model else ""
            asked: dict[str, Any] = {"op": "worker_on", "owner": owner, "model": named}
            await self._lease.request(asked | ({"server": server.request()} if server else {}))
            return
        self._spawn(bundle, owner, model, server, relay, pieces)

    async def stop(self) -> None:
        """Drain and stop; returns when the process is gone."""
        if self._lease is not None:
            await self._lease.request({"op": "worker_off"})
            return
        pid = self._read_status().get("pid", 0)
        if not isinstance(pid, int) or not self._runs(pid):
            return
        os.kill(pid, signal.SIGTERM)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STOP_TIMEOUT_S
        while _alive(pid):
            if loop.time() > deadline:
                raise TimedOut(f"the worker (process {pid}) is still draining after {STOP_TIMEOUT_S:g} s")
            await asyncio.sleep(0.1)

    def status(self) -> WorkerStatus:
        """What the worker last wrote of itself, if it lives."""
        found = self._read_status()
        pid = found.get("pid", 0)
        if not isinstance(pid, int) or not self._runs(pid):
            return _OFF
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
            problem=clean_line(str(found.get("problem", "")), 200),
            backend=clean_line(str(found.get("backend", "")), 20),
            backend_url=clean_line(str(found.get("backend_url", "")), 512),
            endpoints=_endpoints(found),
            slices=served_slices(found),
        )

    def earned_unclaimed_udllm(self) -> int:
        """Vouchers that the worker holds and has not claimed; its own word, as last written."""
        return _number(self._read_status(), "earned_unclaimed_udllm")

    async def _register(
        self, chain: Chain, bundle: NetworkBundle, keys: dict[str, bytes], *, brings_model: bool
    ) -> None:
        """Register the provider where it is new, and give its operator what it needs for fees.

        On an embedded network the operator also gets a model's bond when the person brings a file of their own;
        elsewhere putting a model into the registry is a decision of its own.
        """
        needed_udllm = OPERATOR_MONEY_UDLLM
        if brings_model and bundle.badge == BADGE_LOCAL:
            needed_udllm += bundle.genesis.params.model_bond_udllm
        operator = await chain.reads.account(keys["operator"])
        missing_udllm = needed_udllm - (operator.balance_udllm if operator else 0)
        provider = provider_id_of(chain.purse.account, keys["operator"])
        actions: list[Record] = []
        if missing_udllm > OPERATOR_MONEY_UDLLM // 2:
            actions.append(Transfer(keys["operator"], missing_udllm))
        if await chain.reads.provider(provider) is None:
            actions.append(
                RegisterProvider(
                    operator=keys["operator"],
                    service_key=keys["service_key"],
                    sealing_key=keys["sealing_key"],
                    endpoints=(UNKNOWN_ENDPOINT,),
                    region="",
                    bond_udllm=bundle.genesis.params.provider_bond_udllm,
                )
            )
        if not actions:
            return
        purse = chain.purse
        if not isinstance(purse, WalletPurse):
            raise WalletLocked(
                "registering a worker posts a bond: that needs the wallet itself, not its chat key",
                hint="give --password-file",
            )
        await chain.sender.send(purse, actions)

    def _spawn(
        self,
        bundle: NetworkBundle,
        owner: str,
        model: Path | None,
        server: ServingFrom | None,
        relay: str,
        pieces: ServingPieces | None,
    ) -> None:
        """Start the worker on its own: it outlives this program, until `stop`."""
        bundle_file = self._home / "bundle"
        bundle_file.write_bytes(SignedBundle(bundle, b"", b"").encode())
        with (make_private_folder(self._home / "logs") / "worker.out").open("ab") as out:
            subprocess.Popen(  # noqa: S603 - our own module, no shell
                worker_command(
                    *(self._home, bundle_file),
                    owner=owner,
                    model=model,
                    server=server,
                    relay=relay,
                    pieces=pieces,
                ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def _runs(self, pid: int) -> bool:
        """Whether that process is our worker: after a reboot its number may be somebody else's, but not its lock."""
        try:
            descriptor = os.open(self._home / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _alive(pid)
        finally:
            os.close(descriptor)
        return False

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
    """
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
        WorkerFailed: it failed, took too long, or is not installed.
    """
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


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _endpoints(found: dict[str, Any]) -> dict[str, str]:
    states = found.get("endpoint_states")
    if not isinstance(states, dict):
        return {}
    few = list(states.items())[:ENDPOINTS_MAX]
    return {clean_line(str(endpoint), 200): clean_line(str(state), 200) for endpoint, state in few}


def _number(found: dict[str, Any], name: str) -> int:
    value = found.get(name, 0)
    return value if isinstance(value, int) else 0
