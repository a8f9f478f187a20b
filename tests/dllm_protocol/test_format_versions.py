"""Whatever has a version says so when it meets a newer one."""

from __future__ import annotations

import pytest

from dllm_protocol.backup import BackupManifest
from dllm_protocol.bundle import NetworkBundle
from dllm_protocol.encoding import FormatVersion, Record
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.genesis import Genesis
from dllm_protocol.messages import ClientHello
from dllm_protocol.model_manifest import Manifest
from dllm_protocol.protobuf import tag, uvarint
from dllm_protocol.receipt import ReceiptBody
from dllm_protocol.relay import ListenClaim
from dllm_protocol.transaction import TransactionBody
from dllm_protocol.vocabulary import Vocabulary
from full_node.state.snapshots.format import Manifest as SnapshotManifest

VERSIONED: tuple[type[Record], ...] = (
    TransactionBody,
    Genesis,
    NetworkBundle,
    ReceiptBody,
    Manifest,
    ClientHello,
    BackupManifest,
    SnapshotManifest,
    Vocabulary,
    ListenClaim,
)
each = pytest.mark.parametrize("kind", VERSIONED, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")


@each
def test_the_first_field_is_the_version(kind: type[Record]) -> None:
    first = kind.__wire__[0]
    assert (first.number, isinstance(first.kind, FormatVersion)) == (1, True)


@each
@pytest.mark.parametrize("ahead", [1, 2, 1_000])
def test_a_newer_version_is_named_with_what_is_known(kind: type[Record], ahead: int) -> None:
    known = kind.__wire__[0].kind.maximum
    newer = tag(1, 0) + uvarint(known + ahead)
    with pytest.raises(MalformedBytes, match=f"version {known + ahead} .* newer .* up to {known}"):
        kind.decode(newer)


def test_no_format_has_a_version_of_another_kind() -> None:
    found = {
        one
        for one in _all_records(Record)
        if one.__wire__
        and one.__wire__[0].name in ("version", "format")
        and one.__module__.split(".")[0] != "tests"
    }
    assert {one.__name__ for one in found if not isinstance(one.__wire__[0].kind, FormatVersion)} <= {
        "AppVersion"  # counts rules, not formats; what is newer is refused by `Release.require_fit`
    }
    assert set(VERSIONED) <= found


def _all_records(base: type[Record]) -> set[type[Record]]:
    return {below for one in base.__subclasses__() for below in (one, *_all_records(one))}
