"""What `dllm doctor` looks at on this machine. Every check answers; none starts or changes anything."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from dllm_chat.cli.check import Check
from dllm_chat.cli.checks_versions import programs, stores
from dllm_chat.config import Config, load_config
from dllm_chat.embedded.clock import read_floor_ns
from dllm_chat.embedded.door import supervisor_running
from dllm_chat.models_found import is_gguf
from dllm_chat.paths import Paths, find_paths
from dllm_chat.session.networks import joined_network
from dllm_chat.version import VERSION
from dllm_protocol.errors import DllmError

MIN_FREE_BYTES = 500 << 20
LOW_FREE_BYTES = 2 << 30
NS_PER_S = 1_000_000_000
RELEASED = datetime(2026, 1, 1, tzinfo=UTC)
"""A clock before this is wrong: this program is younger."""


def run_checks() -> list[Check]:
    """All checks of this machine, in the order in which things would fail."""
    paths = find_paths()
    checks = [Check("dllm", "ok", f"{VERSION}, Python {platform.python_version()}, {platform.platform()}")]
    try:
        config = load_config(paths.config_file)
        checks.append(Check("settings", "ok", str(paths.config_file)))
    except DllmError as error:
        config = Config(origin={})
        checks.append(Check("settings", "fail", error.message, error.hint))
    for look in _LOOKS:
        checks += look(paths, config)
    return checks


def _folders(paths: Paths, _: Config) -> Iterator[Check]:
    for name in ("config", "data", "state", "cache"):
        folder: Path = getattr(paths, name)
        yield _folder(f"{name} folder", folder)


def _folder(name: str, folder: Path) -> Check:
    if not folder.exists():
        nearest = next(parent for parent in folder.parents if parent.exists())
        if os.access(nearest, os.W_OK):
            return Check(name, "ok", f"{folder} (not made yet)")
        return Check(
            name, "fail", f"{folder} cannot be made in {nearest}", "set DLLM_HOME to a folder of yours"
        )
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not os.access(folder, os.W_OK):
        return Check(name, "fail", f"{folder} cannot be written", "change its owner, or set DLLM_HOME")
    if mode & 0o077:
        return Check(name, "warn", f"{folder} has mode {mode:04o}", f"chmod 700 {folder}")
    return Check(name, "ok", f"{folder} ({mode:04o})")


def _secrets(paths: Paths, _: Config) -> Iterator[Check]:
    """Files with keys that others may read."""
    open_files = [
        path
        for folder in (paths.wallets, paths.embedded)
        if folder.is_dir()
        for path in folder.rglob("*.json")
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    if open_files:
        yield Check("key files", "fail", f"others may read {open_files[0]}", f"chmod 600 {open_files[0]}")
    else:
        yield Check("key files", "ok", "private")


def _disk(paths: Paths, _: Config) -> Iterator[Check]:
    nearest = next(folder for folder in (paths.data, *paths.data.parents) if folder.exists())
    free = shutil.disk_usage(nearest).free
    found = f"{free / 1e9:.1f} GB free at {nearest}"
    if free < MIN_FREE_BYTES:
        yield Check("disk", "fail", found, "make room: the chain and receipts need it")
    elif free < LOW_FREE_BYTES:
        yield Check("disk", "warn", found, "models need more room than this")
    else:
        yield Check("disk", "ok", found)


def _clock(paths: Paths, _: Config) -> Iterator[Check]:
    now_ns = time.time_ns()
    now = datetime.fromtimestamp(now_ns / NS_PER_S, UTC)
    floor_ns = read_floor_ns(paths.embedded)
    if now < RELEASED:
        yield Check("clock", "fail", now.isoformat(timespec="seconds"), "set it: trust in headers has a time")
    elif now_ns < floor_ns:
        behind_s = (floor_ns - now_ns) // NS_PER_S
        yield Check(
            "clock", "warn", f"{behind_s} s behind the embedded chain's newest block", "was it set back?"
        )
    else:
        yield Check("clock", "ok", now.isoformat(timespec="seconds"))


def _ports(_: Paths, __: Config) -> Iterator[Check]:
    """The embedded network listens on loopback, at ports that the system chooses."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            yield Check("loopback", "ok", f"port {probe.getsockname()[1]} was free")
    except OSError as error:
        yield Check(
            "loopback", "fail", f"cannot listen on 127.0.0.1: {error.strerror}", "allow loopback sockets"
        )


def _llama(_: Paths, __: Config) -> Iterator[Check]:
    """Found, not imported: its native library stays in the engine's process."""
    if importlib.util.find_spec("llama_cpp") is None:
        yield Check(
            "llama.cpp", "warn", "not installed", "asking on a network works without; to serve: make setup"
        )
        return
    yield Check("llama.cpp", "ok", f"llama-cpp-python {metadata.version('llama-cpp-python')}")


def _keyring(_: Paths, config: Config) -> Iterator[Check]:
    """Only looked up, never written."""
    import keyring
    from keyring.backends.fail import Keyring as NoKeyring

    if config.keyring_backend == "file":
        yield Check("keyring", "ok", "not used: chat keys are kept in files")
        return
    found = keyring.get_keyring()
    if isinstance(found, NoKeyring):
        state: Literal["warn", "ok"] = "warn" if config.keyring_backend == "os" else "ok"
        yield Check("keyring", state, "none: chat keys are kept in files (0600)")
        return
    yield Check("keyring", "ok", f"{type(found).__module__}.{type(found).__name__}")


def _model_file(_: Paths, config: Config) -> Iterator[Check]:
    if config.model_file:
        path = Path(config.model_file).expanduser()
        if is_gguf(path):
            yield Check("model file", "ok", f"{path}, {path.stat().st_size / 1e9:.2f} GB")
        else:
            yield Check("model file", "fail", f"{path} is not a GGUF file", "see dllm model found")
        return
    worker = importlib.util.find_spec("local_worker")
    places = list(worker.submodule_search_locations or []) if worker else []
    packed = next((path for place in places for path in sorted(Path(place).rglob("*.gguf"))), None)
    if packed is None:
        yield Check("model file", "fail", "the package holds no model", "install it anew: make setup")
    else:
        yield Check("model file", "ok", f"{packed.name} of the package, {packed.stat().st_size / 1e6:.1f} MB")


def _network(paths: Paths, _: Config) -> Iterator[Check]:
    try:
        joined = joined_network(paths)
    except DllmError as error:
        yield Check("network", "fail", error.message, error.hint)
        return
    if joined is not None:
        yield Check("network", "ok", f"joined {joined.bundle.chain_id}; dllm network status asks it")
    elif paths.embedded.is_dir() and supervisor_running(paths.embedded):
        yield Check("network", "ok", "embedded, running")
    else:
        yield Check("network", "ok", "embedded, starts when it is needed")


_LOOKS: tuple[Callable[[Paths, Config], Iterator[Check]], ...] = (
    _folders, _secrets, _disk, _clock, _ports, programs, stores, _llama, _keyring, _model_file, _network
)  # fmt: skip
