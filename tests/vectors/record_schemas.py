"""Records `schemas.json`: the tables of every version of every database, by hash.

``python -m tests.vectors.record_schemas`` adds what is new and refuses to change what was recorded: a schema changes by
a further step, never by another text of an old one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dllm_chat.history import schema as history
from dllm_chat.session import saved
from dllm_protocol.schema_steps import Schema, bring_up_to_date
from full_node.faucet import grants as faucet
from full_node.state import schema as node
from light_node import trust_store
from local_worker import store as worker

FILE = Path(__file__).with_name("schemas.json")
SCHEMAS: tuple[Schema, ...] = (
    node.SCHEMA,
    trust_store.SCHEMA,
    worker.SCHEMA,
    history.SCHEMA,
    saved.SCHEMA,
    faucet.SCHEMA,
)


def tables_hash(connection: sqlite3.Connection) -> str:
    """Hash over everything that our steps declare; what SQLite adds for itself differs between its versions."""
    rows = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    ).fetchall()
    shadows = tuple(f"{name}_" for _, name, _, sql in rows if sql and sql.startswith("CREATE VIRTUAL"))
    ours = [row for row in rows if row[3] and not row[1].startswith(("sqlite_", *shadows))]
    return hashlib.sha256(json.dumps(ours).encode()).hexdigest()


def recorded_form(schema: Schema) -> dict[str, object]:
    """What is kept of a schema: its mark and the hash after each step."""
    versions = {}
    for number in range(1, schema.version + 1):
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            part = replace(schema, steps=schema.steps[:number])
            bring_up_to_date(connection, part, "memory", lambda _version: None)
            versions[str(number)] = tables_hash(connection)
    return {"application id": schema.application_id.to_bytes(4, "big").decode(), "versions": versions}


def examples() -> dict[str, object]:
    """Everything in `schemas.json`."""
    return {schema.name: recorded_form(schema) for schema in SCHEMAS}


def changed(recorded: Mapping[str, object], found: Mapping[str, object]) -> list[str]:
    """What was recorded and is not so any more."""
    wrong = []
    for name, old in recorded.items():
        new = found.get(name, {})
        assert isinstance(old, dict)
        assert isinstance(new, dict)
        versions = new.get("versions", {})
        wrong += [f"{name} {n}" for n, was in old["versions"].items() if versions.get(n) != was]
    return wrong


if __name__ == "__main__":
    if FILE.exists() and (wrong := changed(json.loads(FILE.read_text("utf-8")), examples())):
        raise SystemExit(f"changed without a new version: {', '.join(wrong)}; add a step instead")
    FILE.write_text(json.dumps(examples(), indent=1) + "\n", "utf-8")
