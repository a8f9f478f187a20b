"""The worker's own keys: operator (account), service (signs), sealing (opens), in one private file.

The operator's key may offer, beat and claim for the provider; it holds what it needs for fees, never the bond's
owner's money unless operator and owner are one. Service and sealing keys stand in the provider's record and can be
rotated: `rotate` writes new ones, and the worker's next start publishes them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from dllm_protocol.address import address_of
from dllm_protocol.sealing import SealingKey
from dllm_protocol.signing import SeedSigner
from local_worker.errors import HomeRefused, KeysDamaged
from local_worker.files import make_home, write_private

FORMAT = "dllm-worker-keys"
VERSION = 1
SEED_BYTES = 32
_NAMES = ("operator", "service", "sealing")
_MAX_FILE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class WorkerKeys:
    """Three keys; their reprs show the public halves only."""

    operator: SeedSigner
    service: SeedSigner
    sealing: SealingKey

    @property
    def operator_address(self) -> bytes:
        """The account that sends this worker's transactions (20 bytes)."""
        return address_of(self.operator.public_key)


def key_file(home: Path) -> Path:
    """Where a home keeps its keys."""
    return home / "keys.json"


def create_keys(home: Path) -> WorkerKeys:
    """Make keys from fresh random seeds.

    Raises:
        HomeRefused: there are keys already; they are never overwritten.
    """
    make_home(home)
    if key_file(home).exists():
        raise HomeRefused(f"{home} has keys already", hint="use it as it is, or name another home")
    seeds = {name: os.urandom(SEED_BYTES) for name in _NAMES}
    _write(home, seeds)
    return _from_seeds(seeds)


def load_keys(home: Path) -> WorkerKeys:
    """The keys of a home.

    Raises:
        HomeRefused: there are none.
        KeysDamaged: the file is not what `create_keys` wrote.
    """
    return _from_seeds(_read(home))


def rotate_keys(home: Path) -> WorkerKeys:
    """Replace service and sealing key; the operator stays, so the provider stays the same.

    Acks signed with the old service key no longer count once the chain knows the new one: rotate when no session
    is open.
    """
    seeds = _read(home) | {name: os.urandom(SEED_BYTES) for name in ("service", "sealing")}
    _write(home, seeds)
    return _from_seeds(seeds)


def _from_seeds(seeds: dict[str, bytes]) -> WorkerKeys:
    return WorkerKeys(
        SeedSigner(seeds["operator"]), SeedSigner(seeds["service"]), SealingKey(seeds["sealing"])
    )


def _write(home: Path, seeds: dict[str, bytes]) -> None:
    content = {
        "format": FORMAT,
        "version": VERSION,
        "seeds": {name: seed.hex() for name, seed in seeds.items()},
    }
    write_private(key_file(home), (json.dumps(content, indent=2) + "\n").encode())


def _read(home: Path) -> dict[str, bytes]:
    path = key_file(home)
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise HomeRefused(f"{home} has no keys", hint="run dllm-worker init first") from error
    if path.stat().st_mode & 0o077:
        raise HomeRefused(f"{path} can be read by others", hint=f"chmod 600 {path}")
    try:
        content = json.loads(raw)
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise ValueError("another format or version")
        seeds = {name: bytes.fromhex(content["seeds"][name]) for name in _NAMES}
    except (ValueError, KeyError, TypeError, RecursionError):
        # The error that json raises would carry the file's text along: it is dropped with its cause.
        raise KeysDamaged(
            f"{path} is not a key file of version {VERSION}", hint="restore it from a backup"
        ) from None
    if any(len(seed) != SEED_BYTES for seed in seeds.values()):
        raise KeysDamaged(
            f"{path} holds a seed that has not {SEED_BYTES} bytes", hint="restore it from a backup"
        )
    return seeds
