"""Every database knows its version: changed schemas get a step, older files come along, newer ones are refused."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest

from dllm_chat.history import schema as history
from dllm_chat.session import saved
from dllm_protocol.schema_steps import SchemaRefused
from full_node.faucet import grants as faucet
from full_node.state import schema as node
from full_node.state.store import Store
from light_node import trust_store
from light_node.trust_store import TrustStore
from local_worker import store as worker
from tests.vectors.record_schemas import FILE, SCHEMAS, changed, examples, recorded_form

RECORDED = json.loads(FILE.read_text("utf-8"))


def _open_worker(path: Path) -> None:
    import asyncio

    async def work() -> None:
        await worker.Store(path).close()

    asyncio.run(work())


@dataclass(frozen=True)
class Kind:
    """A store, how it is opened and closed again, and a statement that puts a row into it."""

    module: ModuleType
    name: str
    open_and_close: Callable[[Path], object]
    insert: str
    count: str


KINDS = (
    Kind(
        node,
        "data.db",
        lambda path: Store(path).close(),
        "INSERT INTO meta VALUES ('kept', x'01')",
        "SELECT count(*) FROM meta",
    ),
    Kind(
        trust_store,
        "light.db",
        lambda path: TrustStore(path, "c").close(),
        "INSERT INTO validator_sets VALUES (x'01', x'02')",
        "SELECT count(*) FROM validator_sets",
    ),
    Kind(
        worker,
        "worker.db",
        _open_worker,
        "INSERT INTO facts VALUES ('kept', 'yes')",
        "SELECT count(*) FROM facts WHERE name = 'kept'",
    ),
    Kind(
        history,
        "chats.db",
        lambda path: history.open_database(path).close(),
        "INSERT INTO settings VALUES ('kept', 'yes')",
        "SELECT count(*) FROM settings",
    ),
    Kind(
        saved,
        "sessions.db",
        lambda path: saved.SessionStore(path.parent).close(),
        "INSERT INTO opening VALUES (x'01', 'c', x'02', 3)",
        "SELECT count(*) FROM opening",
    ),
    Kind(
        faucet,
        "grants.db",
        lambda path: faucet.Grants(path, faucet.Limits(), lambda: 0).close(),
        "INSERT INTO grants VALUES (1, 2, x'03', 'kept')",
        "SELECT count(*) FROM grants",
    ),
)
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def _ask(path: Path, *statements: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchone() for statement in statements]


def test_no_schema_changes_without_a_new_version() -> None:
    assert not changed(RECORDED, examples()), "add a step to the schema instead of changing one"
    assert examples() == RECORDED, "record the new version: python -m tests.vectors.record_schemas"


def test_a_schema_that_changed_without_a_step_is_found() -> None:
    first = SCHEMAS[0]
    altered = replace(first, steps=((*first.steps[0], "CREATE TABLE sneaked (x)"),))  # type: ignore[misc]  # it is SQL
    assert changed(RECORDED, {**examples(), first.name: recorded_form(altered)}) == [f"{first.name} 1"]
    longer = replace(first, steps=(*first.steps, ("CREATE TABLE announced (x)",)))
    assert changed(RECORDED, {**examples(), first.name: recorded_form(longer)}) == []


def test_marks_are_of_one_store_each() -> None:
    assert len({schema.application_id for schema in SCHEMAS}) == len(SCHEMAS) == len(KINDS)
    assert {kind.module.SCHEMA for kind in KINDS} == set(SCHEMAS)


@kinds
def test_an_older_file_comes_along_with_its_rows_and_a_copy_stays(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / kind.name
    kind.open_and_close(path)
    _ask(path, kind.insert)
    old = kind.module.SCHEMA
    step = ("CREATE TABLE added (x)", "INSERT INTO added VALUES (9)")
    monkeypatch.setattr(kind.module, "SCHEMA", replace(old, steps=(*old.steps, step)))
    kind.open_and_close(path)
    found = _ask(path, "PRAGMA user_version", kind.count, "SELECT x FROM added")
    assert found == [(old.version + 1,), (1,), (9,)]
    copy = path.with_name(f"{path.name}.v{old.version}")
    assert _ask(copy, "PRAGMA user_version", kind.count) == [(old.version,), (1,)]
    assert copy.stat().st_mode & 0o777 == 0o600
    # And once it is today's, opening it again changes nothing.
    kind.open_and_close(path)
    assert _ask(path, "SELECT count(*) FROM added") == [(1,)]


@kinds
def test_a_step_that_fails_leaves_the_old_version(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / kind.name
    kind.open_and_close(path)
    _ask(path, kind.insert)
    old = kind.module.SCHEMA
    broken = ("CREATE TABLE added (x)", "INSERT INTO nowhere VALUES (1)")
    monkeypatch.setattr(kind.module, "SCHEMA", replace(old, steps=(*old.steps, broken)))
    with pytest.raises(Exception, match="nowhere"):
        kind.open_and_close(path)
    monkeypatch.undo()
    kind.open_and_close(path)
    assert _ask(path, "PRAGMA user_version", kind.count) == [(old.version,), (1,)]


@kinds
def test_a_newer_file_is_refused_and_untouched(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / kind.name
    kind.open_and_close(path)
    _ask(path, kind.insert, "PRAGMA user_version = 99")
    with pytest.raises(SchemaRefused, match="version 99, this program knows up to"):
        kind.open_and_close(path)
    assert _ask(path, "PRAGMA user_version", kind.count) == [(99,), (1,)]


@kinds
def test_another_programs_file_is_refused(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / kind.name
    _ask(path, "CREATE TABLE theirs (x)")
    with pytest.raises(SchemaRefused, match="of ours"):
        kind.open_and_close(path)
