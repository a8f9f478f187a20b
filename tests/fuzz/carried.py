"""Decoders of what people carry from one machine to another: backups, invitations, key proofs."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from ipaddress import IPv4Address
from pathlib import Path

from dllm_chat.backup.archive import unpack as unpack_client
from dllm_protocol.actions.validators import parse_key_proof
from dllm_protocol.backup import MAGIC, BackupFile, BackupManifest, read_backup, read_manifest
from dllm_protocol.base32 import read_base32
from dllm_protocol.endpoints import RelayEndpoint, read_endpoint, write_relay_endpoint
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.invitation import Invitation, bundle_hash_of, read_code, read_hash, write_code
from dllm_protocol.relay_invitation import (
    BundleReader,
    RelayInvitation,
    read_relay_code,
    sealed_parts,
    write_relay_code,
)
from full_node.backup.archive import unpack as unpack_node
from tests.fuzz.decoder import Decoder, OtherSpelling, text
from tests.fuzz.node import through_file

_CONTENT = b"words"
_DIGITS = 28
_RELAYED = RelayInvitation(bundle_hash_of(_CONTENT), 7)
_SEALED = b"".join(sealed_parts(_CONTENT, _RELAYED))


def _manifest(kind: str, *names: str) -> bytes:
    files = tuple(BackupFile(name, len(_CONTENT), sha256(_CONTENT).digest()) for name in names)
    return BackupManifest(1, kind, "0.1.0", 1_790_000_000_000, files, ("secret.json",)).encode()


def framed(manifest: bytes, *contents: bytes) -> bytes:
    """A backup whose list of files has the hash that fits: whoever forges one computes it too."""
    head = MAGIC + len(manifest).to_bytes(8, "big") + manifest + sha256(manifest).digest()
    return head + b"".join(contents)


def _whole(data: bytes) -> None:
    @contextlib.contextmanager
    def nowhere(_name: str) -> Iterator[io.BytesIO]:
        yield io.BytesIO()

    read_backup(io.BytesIO(data).read, "node", nowhere)


def _unpacked(unpack: Callable[[Path, str, Path], object], kind: str) -> Callable[[bytes], object]:
    """Unpacks what follows a fitting head; nothing may appear outside the folder."""

    def read(source: Path) -> None:
        with tempfile.TemporaryDirectory() as outside:
            try:
                unpack(source, kind, Path(outside) / "restored")
            finally:
                if stray := [one for one in Path(outside).iterdir() if one.name != "restored"]:
                    raise AssertionError(f"{stray[0]} lies outside the folder")

    of_file = through_file(read, f"{kind}.backup")
    return lambda data: of_file(framed(data, _CONTENT, _CONTENT))


def _code(typed: str) -> None:
    if read_code(write_code(read_code(typed))) != read_code(typed):
        raise OtherSpelling(typed)


def _relay_code(typed: str) -> None:
    if read_relay_code(write_relay_code(read_relay_code(typed))) != read_relay_code(typed):
        raise OtherSpelling(typed)


def _endpoint(told: str) -> None:
    """What a provider's record says, and a client dials."""
    found = read_endpoint(told)
    if (
        isinstance(found, RelayEndpoint)
        and write_relay_endpoint(found.url, found.relay, found.address) != told
    ):
        raise OtherSpelling(told)


def _relayed(data: bytes) -> None:
    """A bundle's messages as a relay may give them: here cut into pieces of a sealed part's length."""
    reader = BundleReader(_RELAYED, "the relay", 4 << 20)
    for at in range(0, len(data), len(_SEALED)):
        reader.take(data[at : at + len(_SEALED)])
    if reader.finish() != _CONTENT:
        raise AssertionError("another bundle was taken")


def _digits(typed: str) -> None:
    value = read_base32(typed, _DIGITS)
    if value is None:
        raise MalformedBytes("not base 32")
    if not 0 <= value < 1 << 5 * _DIGITS:
        raise AssertionError(f"{typed!r} spells {value}")


def decoders() -> list[Decoder]:
    """Files and typed words."""
    code = write_code(Invitation(IPv4Address("192.168.1.7"), 8123, b"\x07" * 10)).encode()
    node, client = _manifest("node", "a.db", "folder/b"), _manifest("client", "a.db", "folder/b")
    backup = framed(node, _CONTENT, _CONTENT)
    table: list[tuple[str, Callable[[bytes], object], tuple[bytes, ...]]] = [
        (
            "dllm_protocol.backup.read_manifest",
            lambda data: read_manifest(io.BytesIO(framed(data)).read, "node"),
            (node,),
        ),
        ("dllm_protocol.backup.read_backup", _whole, (backup,)),
        (
            "full_node.backup.archive.unpack",
            _unpacked(unpack_node, "node"),
            (node, _manifest("node", "a", "a/b")),
        ),
        ("dllm_chat.backup.archive.unpack", _unpacked(unpack_client, "client"), (client,)),
        ("dllm_protocol.invitation.read_code", text(_code), (code, code.lower())),
        (
            "dllm_protocol.relay_invitation.read_relay_code",
            text(_relay_code),
            (write_relay_code(_RELAYED).encode(),),
        ),
        (
            "dllm_protocol.endpoints.read_endpoint",
            text(_endpoint),
            (
                b"wss://worker.example",
                write_relay_endpoint("wss://relay.example/a", "relay.example:443", b"\x07" * 32).encode(),
                write_relay_endpoint("ws://[::1]:9700", "[::1]:9700", b"\x07" * 32).encode(),
            ),
        ),
        ("dllm_protocol.relay_invitation.BundleReader.take", _relayed, (_SEALED,)),
        ("dllm_protocol.invitation.read_hash", text(read_hash), (b"ABCD-EFGH-JKMN-PQRS",)),
        ("dllm_protocol.base32.read_base32", text(_digits), (code,)),
        ("dllm_protocol.actions.validators.parse_key_proof", text(parse_key_proof), (b"07" * 96,)),
    ]
    return [Decoder(name, "carried", read, examples) for name, read, examples in table]
