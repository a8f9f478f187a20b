"""Sessions on disk: whole after a kill, and one process at a time."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

from dllm_chat.session.saved import SavedSession, SessionStore
from dllm_protocol.errors import DllmError, MalformedBytes
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.pricing import RowPrices
from dllm_protocol.records import Route, RouteStage
from dllm_protocol.session.ledger import fresh_state

ACCOUNT, OTHER = b"\7" * 20, b"\x08" * 20
CHAIN = "test-00000000"


def session(number: int, *, account: bytes = ACCOUNT, chain_id: str = CHAIN, closed: int = 0) -> SavedSession:
    session_id = bytes([number]) * 32
    entry = BookEntry(b"\1" * 20, b"\2" * 20, 0, 4, RowPrices(1, 2, 3, 4), 8, 500_000)
    route = Route(session_id, "m", b"\4" * 32, 1, b"\5" * 32, b"\6" * 32, (), (RouteStage(entry, None),))
    return SavedSession(
        chain_id, account, number, route, 1000, 100_000, fresh_state(session_id), (), closed, b"\x09" * 32
    )


def test_what_was_saved_is_there_for_the_next_process(tmp_path: Path) -> None:
    first = SessionStore(tmp_path / "sessions")
    first.save(session(1))
    first.save(replace(session(1), deposit_udllm=2000))
    # No close: the process was killed.
    second = SessionStore(tmp_path / "sessions")
    found = second.load(b"\1" * 32)
    assert found is not None and found.deposit_udllm == 2000
    assert second.load(b"\2" * 32) is None


def test_sessions_are_listed_by_chain_account_and_whether_they_are_open(tmp_path: Path) -> None:
    store = SessionStore(tmp_path / "sessions")
    for one in (
        session(1),
        session(2, closed=1),
        session(3, account=OTHER),
        session(4, chain_id="other-00000000"),
    ):
        store.save(one)
    assert [one.key_index for one in store.all(CHAIN, ACCOUNT, open_only=True)] == [1]
    assert [one.key_index for one in store.all(CHAIN, ACCOUNT, open_only=False)] == [1, 2]


def test_a_session_belongs_to_one_user_at_a_time(tmp_path: Path) -> None:
    one, other = SessionStore(tmp_path / "sessions"), SessionStore(tmp_path / "sessions")
    with one.claim(b"\1" * 32) as mine:
        assert mine
        with other.claim(b"\1" * 32) as theirs:
            assert not theirs
        with other.claim(b"\2" * 32) as another:
            assert another
    with other.claim(b"\1" * 32) as now:
        assert now


def test_a_session_that_was_about_to_be_opened_is_remembered_until_it_is_saved(tmp_path: Path) -> None:
    store = SessionStore(tmp_path / "sessions")
    store.begin(b"\1" * 32, CHAIN, ACCOUNT, 5)
    store.begin(b"\2" * 32, CHAIN, ACCOUNT, 6)
    store.begin(b"\3" * 32, CHAIN, OTHER, 7)
    assert store.begun(CHAIN, ACCOUNT) == [(b"\1" * 32, 5), (b"\2" * 32, 6)]
    store.save(session(1))
    store.forget(b"\2" * 32)
    assert SessionStore(tmp_path / "sessions").begun(CHAIN, ACCOUNT) == []


def test_its_files_are_private(tmp_path: Path) -> None:
    store = SessionStore(tmp_path / "sessions")
    store.save(session(1))
    with store.claim(b"\1" * 32):
        for path in (tmp_path / "sessions").rglob("*"):
            wanted = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) & ~wanted == 0, path


def test_every_changed_byte_of_a_record_is_noticed_or_another_value(tmp_path: Path) -> None:
    raw = session(1).encode()
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        try:
            assert SavedSession.decode(changed) != session(1)
        except DllmError as error:
            assert isinstance(error, MalformedBytes)
