"""A backup is read only as it was written, and never reaches outside its folder."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256

import pytest

from dllm_protocol.backup import (
    MAGIC,
    VERSION,
    BackupDamaged,
    BackupFile,
    BackupManifest,
    is_safe_name,
    read_backup,
    read_manifest,
    write_backup,
)

CONTENTS = {"config.toml": b"a = 1\n", "data/wallets/main/keystore.json": b"{}" * 1000, "empty": b""}


def _manifest(contents: dict[str, bytes]) -> BackupManifest:
    files = tuple(
        BackupFile(name, len(data), sha256(data).digest()) for name, data in sorted(contents.items())
    )
    return BackupManifest(VERSION, "client", "0.1.0", 1_790_000_000_000, files, ("worker/keys.json",))


def _written(manifest: BackupManifest, contents: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    write_backup(manifest, lambda name: io.BytesIO(contents[name]), out.write)
    return out.getvalue()


def _read(data: bytes, kind: str = "client") -> tuple[BackupManifest, dict[str, bytes]]:
    found: dict[str, bytes] = {}

    @contextlib.contextmanager
    def new_file(name: str) -> Iterator[io.BytesIO]:
        out = io.BytesIO()
        yield out
        found[name] = out.getvalue()

    return read_backup(io.BytesIO(data).read, kind, new_file), found


GOOD = _written(_manifest(CONTENTS), CONTENTS)


def test_what_was_written_is_read() -> None:
    manifest, found = _read(GOOD)
    assert manifest == _manifest(CONTENTS)
    assert found == CONTENTS


def test_the_form_is_the_recorded_one() -> None:
    assert GOOD.startswith(MAGIC)
    assert sha256(GOOD).hexdigest() == "285ca79c179f21a4109241324c4e30dc1d6bd6f3037937683c2d61b5b47b1cf2"


@pytest.mark.parametrize("at", [0, len(MAGIC) + 3, len(MAGIC) + 12, len(GOOD) // 2, len(GOOD) - 1])
def test_a_changed_byte_is_noticed(at: int) -> None:
    changed = bytearray(GOOD)
    changed[at] ^= 1
    with pytest.raises(BackupDamaged):
        _read(bytes(changed))


@pytest.mark.parametrize("length", [0, 5, len(MAGIC), len(MAGIC) + 8, 100, len(GOOD) - 1])
def test_a_short_backup_is_noticed(length: int) -> None:
    with pytest.raises(BackupDamaged):
        _read(GOOD[:length])


def test_bytes_behind_the_end_are_noticed() -> None:
    with pytest.raises(BackupDamaged, match="behind the last file"):
        _read(GOOD + b"x")


def test_the_backup_of_another_kind_is_refused() -> None:
    with pytest.raises(BackupDamaged, match="backup of a client, wanted is one of a node"):
        _read(GOOD, "node")


def test_a_list_that_would_fill_the_memory_is_not_read() -> None:
    with pytest.raises(BackupDamaged, match="at most"):
        _read(MAGIC + (1 << 60).to_bytes(8, "big"))


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a//b", "./a", "a/.", ".."])
def test_names_that_reach_outside_are_refused(name: str) -> None:
    assert not is_safe_name(name)
    contents = {name: b"x"}
    with pytest.raises(BackupDamaged, match="outside"):
        _read(_written(_manifest(contents), contents))


def test_a_name_twice_is_refused() -> None:
    manifest = _manifest({"a": b"x"})
    twice = replace(manifest, files=manifest.files * 2)
    with pytest.raises(BackupDamaged, match="twice"):
        read_manifest(io.BytesIO(_written(twice, {"a": b"x"})).read, "client")


def test_a_newer_version_is_said_to_be_newer() -> None:
    data = bytearray(GOOD)
    data[: len(MAGIC)] = MAGIC.replace(b"1", b"2")
    with pytest.raises(BackupDamaged, match="no backup of version 1") as caught:
        _read(bytes(data))
    assert "newer" in caught.value.hint


def test_a_file_that_changes_while_it_is_written_is_noticed() -> None:
    with pytest.raises(BackupDamaged):
        _written(_manifest(CONTENTS), {**CONTENTS, "config.toml": b"a = 2\n"})
