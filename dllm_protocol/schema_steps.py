"""Versions of a database, once for all stores: which steps lead from an older file to today's.

A schema is a list of steps; running the first n makes version n, which stands in the file as ``user_version`` beside
the ``application_id`` of its kind. A step that was released is never changed, only followed by another. Pure: the
connection is handed in, and so is the copy that is made of an older file before it is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dllm_protocol.errors import UsageRefused


class SchemaRefused(UsageRefused):
    """A database of another program, or of a newer version of this one."""

    code = "E_SCHEMA"


class Database(Protocol):
    """What is needed of an open SQLite connection in autocommit mode."""

    def execute(self, sql: str, /) -> Any:
        """Runs one statement and gives a cursor with ``fetchone``."""
        ...


Step = Sequence[str] | Callable[[Database], None]
"""SQL statements, or a function for what SQL alone cannot say; either runs inside the upgrade's transaction."""


@dataclass(frozen=True, slots=True)
class Schema:
    """One kind of database.

    Attributes:
        name: what it is, in words, for messages.
        application_id: 32-bit mark of the kind, so that no other file is mistaken for one.
        steps: running the first n makes version n.
    """

    name: str
    application_id: int
    steps: tuple[Step, ...]

    @property
    def version(self) -> int:
        """Today's version."""
        return len(self.steps)


def bring_up_to_date(
    database: Database, schema: Schema, where: str, keep_copy: Callable[[int], object]
) -> int:
    """Makes a new database today's, or an older one, in one transaction; a failed step leaves the old file whole.

    Args:
        where: the file's name, for messages.
        keep_copy: told the old version before the first step over a file that has one; it is called while the file
            is locked for writing and read through another connection shows the old content.

    Returns:
        The version that was found; 0 for a new file.

    Raises:
        SchemaRefused: another program's file, or a newer version's; nothing was changed.
    """
    if (found := _version(database, schema, where)) == schema.version:
        return found
    database.execute("BEGIN IMMEDIATE")
    try:
        # Read again under the lock: another process may have been faster.
        found = _version(database, schema, where)
        if 0 < found < schema.version:
            keep_copy(found)
        for step in schema.steps[found:]:
            if callable(step):
                step(database)
            else:
                for statement in step:
                    database.execute(statement)
        database.execute(f"PRAGMA application_id = {schema.application_id}")
        database.execute(f"PRAGMA user_version = {schema.version}")
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise
    return found


def _version(database: Database, schema: Schema, where: str) -> int:
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    owner = int(database.execute("PRAGMA application_id").fetchone()[0])
    tables = int(database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    if owner != schema.application_id and (owner or version or tables):
        raise SchemaRefused(
            f"{where} is no {schema.name} of ours: application id {owner:#x}, ours is {schema.application_id:#x}",
            hint="move the file away; a new one is made",
        )
    if version > schema.version:
        raise SchemaRefused(
            f"{where} is a {schema.name} of version {version}, this program knows up to {schema.version}",
            hint="run the newer version of the program that wrote it",
        )
    return version
