"""Wallet files: JSON in one canonical spelling, named, versioned and checked, so that no changed byte passes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from dllm_chat.paths import write_private
from dllm_chat.wallet.errors import FileDamaged, UnknownVersion

MAX_FILE_BYTES = 4 * 1024 * 1024


def spell(content: dict[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, two spaces, ASCII, a newline at the end."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=True) + "\n").encode()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file (0600, crash-safe) with its checksum: SHA-256 over the spelling without the checksum."""
    write_private(path, spell({**content, "checksum": hashlib.sha256(spell(content)).hexdigest()}))


def read_json(path: Path, kind: str, newest_version: int) -> dict[str, Any]:
    """Read what `write_json` wrote; the content has ``format`` = ``kind`` and a known ``version``.

    Every version, future ones too, keeps this envelope, so that a damaged file is told from a newer one.

    Raises:
        FileDamaged: any byte is another than was written, or it is another kind of file.
        UnknownVersion: written by a newer program.
        FileNotFoundError: no such file.
    """
    with path.open("rb") as file:
        raw = file.read(MAX_FILE_BYTES + 1)
    content = _parse(raw, path)
    if content.get("format") != kind:
        raise _damaged(path, f"it says that it is {str(content.get('format'))[:40]!r}, not {kind!r}")
    version = content.get("version")
    if type(version) is not int or version < 0:
        raise _damaged(path, f"its version is {str(version)[:40]!r}")
    checksum = content.pop("checksum", None)
    found = hashlib.sha256(spell(content)).hexdigest()
    if checksum != found:
        raise _damaged(path, f"its checksum is {str(checksum)[:16]!r}…, its content gives {found[:16]!r}…")
    if spell({**content, "checksum": checksum}) != raw:
        raise _damaged(path, "its spelling was changed")
    if version > newest_version:
        raise UnknownVersion(
            f"{path} has version {version}, this program knows up to {newest_version}",
            hint="a newer dllm wrote it; upgrade this one",
        )
    return content


def _parse(raw: bytes, path: Path) -> dict[str, Any]:
    if len(raw) > MAX_FILE_BYTES:
        raise _damaged(path, f"it is longer than {MAX_FILE_BYTES} bytes")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:  # ValueError covers bad UTF-8 and bad JSON
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(content, dict):
        raise _damaged(path, "it is not a JSON object")
    return content


def _damaged(path: Path, reason: str) -> FileDamaged:
    return FileDamaged(
        f"{path} is damaged: {reason}", hint="restore the file from a backup, or the wallet from its words"
    )


def hex_field(content: dict[str, Any], name: str, size: int | None = None) -> bytes:
    """Bytes of a hexadecimal field, of exactly ``size`` where given.

    Raises:
        FileDamaged: absent, not hexadecimal, or of another length.
    """
    value = content.get(name)
    try:
        if not isinstance(value, str):
            raise ValueError("not text")
        data = bytes.fromhex(value)
    except ValueError as error:
        raise FileDamaged(f"field {name!r} is not hexadecimal") from error
    if size is not None and len(data) != size:
        raise FileDamaged(f"field {name!r} has {len(data)} bytes, not {size}")
    return data


def int_field(content: dict[str, Any], name: str, minimum: int, maximum: int) -> int:
    """An integer field within bounds.

    Raises:
        FileDamaged: absent, of another type, or out of bounds.
    """
    value = content.get(name)
    if type(value) is not int or not minimum <= value <= maximum:
        raise FileDamaged(f"field {name!r} is {str(value)[:40]}, not an integer in {minimum}..{maximum}")
    return value
