"""Verified light blocks on disk: survives kill -9, is pruned, and is shared by the processes of one home.

SQLite in WAL mode: a killed process leaves whole transactions or none, and readers never wait for a writer.
Validator sets are stored once by their hash; it does not cover proposer priorities, which change from height to height
and are stored with the light block. Every row is checked against its hash when it is read, so that a
damaged file is noticed; it is then moved aside and trust begins again at the root.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

from dllm_protocol.block import LightBlock, SignedHeader
from dllm_protocol.commit import Commit
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.header import Header
from dllm_protocol.schema_steps import Schema, bring_up_to_date
from dllm_protocol.validator_set import ValidatorSet
from light_node.errors import ForkDetected, RootMismatch, TrustStoreFailed
from light_node.sqlite_files import keep_old_version, switch_to_wal

KEEP_BLOCKS = 1000
"""CometBFT's default pruning size."""
BUSY_TIMEOUT_MS = 5000
_PRIORITY_BYTES = 8
_VERSION_1 = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE validator_sets (hash BLOB PRIMARY KEY, members BLOB NOT NULL)",
    "CREATE TABLE light_blocks (height INTEGER PRIMARY KEY, hash BLOB NOT NULL, "
    "header BLOB NOT NULL, commit_bytes BLOB NOT NULL)",
)
_VERSION_2 = ("ALTER TABLE light_blocks ADD COLUMN priorities BLOB",)
SCHEMA = Schema("trust store", 0x444C4C54, (_VERSION_1, _VERSION_2))  # "DLLT"


class TrustStore:
    """The light blocks that this home believes, for one chain."""

    def __init__(self, path: Path, chain_id: str, *, keep_blocks: int = KEEP_BLOCKS) -> None:
        """Open or create the store.

        Args:
            path: the file; its folder is created with mode 0700, the file has mode 0600.
            chain_id: the chain that the store is for.
            keep_blocks: how many light blocks `add` leaves; the oldest go first.

        Raises:
            RootMismatch: the file belongs to another chain.
            SchemaRefused: another program's file, or a newer version's.
            TrustStoreFailed: it cannot be opened or created.
        """
        self.path = path
        self._keep_blocks = keep_blocks
        self._chain_id = chain_id
        with self._declared():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                self._db = self._open()
            except sqlite3.OperationalError:
                # Locked, full or read-only: nothing is wrong with the file itself.
                raise
            except sqlite3.DatabaseError:
                self._move_aside()
                self._db = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def latest(self) -> LightBlock | None:
        """Return the highest light block."""
        return self._read("ORDER BY height DESC LIMIT 1", ())

    def earliest(self) -> LightBlock | None:
        """Return the lowest light block."""
        return self._read("ORDER BY height ASC LIMIT 1", ())

    def at(self, height: int) -> LightBlock | None:
        """Return the light block at a height."""
        return self._read("WHERE height = ?", (height,))

    def at_or_below(self, height: int) -> LightBlock | None:
        """Return the nearest light block that is not above a height."""
        return self._read("WHERE height <= ? ORDER BY height DESC LIMIT 1", (height,))

    def at_or_above(self, height: int) -> LightBlock | None:
        """Return the nearest light block that is not below a height."""
        return self._read("WHERE height >= ? ORDER BY height ASC LIMIT 1", (height,))

    def count(self) -> int:
        """Return how many light blocks there are."""
        with self._declared():
            row = self._db.execute("SELECT COUNT(*) FROM light_blocks").fetchone()
        return int(row[0])

    def validators(self, set_hash: bytes) -> ValidatorSet | None:
        """Return a known validator set by its hash."""
        with self._declared():
            row = self._db.execute(
                "SELECT members FROM validator_sets WHERE hash = ?", (set_hash,)
            ).fetchone()
        if row is None:
            return None
        try:
            found = ValidatorSet.decode(row[0])
        except MalformedBytes:
            return None
        return found if found.hash() == set_hash else None

    def add(self, block: LightBlock) -> None:
        """Store a verified light block and prune.

        Raises:
            ForkDetected: another header is trusted at this height already.
        """
        header = block.header
        with self._writing() as db:
            row = db.execute("SELECT hash FROM light_blocks WHERE height = ?", (header.height,)).fetchone()
            if row is not None and row[0] != header.hash():
                raise ForkDetected(
                    f"height {header.height}: trusted is header {row[0].hex()}, now verified {header.hash().hex()}",
                    hint="the chain forked, or the store belongs to another chain: stop using this network",
                )
            _insert(db, block)
            self._prune(db)

    def replace_all(self, block: LightBlock) -> None:
        """Forget everything and begin at this block, in one transaction. The caller knows why that is allowed."""
        with self._writing() as db:
            db.execute("DELETE FROM light_blocks")
            db.execute("DELETE FROM validator_sets")
            _insert(db, block)

    def _prune(self, db: sqlite3.Connection) -> None:
        lowest = db.execute(
            "SELECT height, header FROM light_blocks ORDER BY height DESC LIMIT 1 OFFSET ?",
            (self._keep_blocks - 1,),
        ).fetchone()
        if lowest is None:
            return
        gone = db.execute(
            "DELETE FROM light_blocks WHERE height < ? RETURNING header", (lowest[0],)
        ).fetchall()
        # Sets seldom change, so the block that is now the lowest mostly needs those of the one that went.
        unused = _sets_of(row[0] for row in gone) - _sets_of([lowest[1]])
        if unused:
            unused -= _sets_of(row[0] for row in db.execute("SELECT header FROM light_blocks"))
        db.executemany("DELETE FROM validator_sets WHERE hash = ?", [(name,) for name in unused])

    def _read(self, clause: str, parameters: tuple[int, ...]) -> LightBlock | None:
        # `clause` comes from the methods above, never from outside.
        query = f"SELECT height, hash, header, commit_bytes, priorities FROM light_blocks {clause}"  # noqa: S608
        while True:
            with self._declared():
                row = self._db.execute(query, parameters).fetchone()
            if row is None:
                return None
            block = self._decoded(*row)
            if block is not None:
                return block
            # A row that is not what was written: forget it, its neighbours still lead to the tip. There may be as
            # many as there are rows, where a validator set that they share is damaged.
            with self._writing() as db:
                db.execute("DELETE FROM light_blocks WHERE height = ?", (row[0],))

    def _decoded(
        self, height: int, block_hash: bytes, header: bytes, commit: bytes, priorities: bytes | None
    ) -> LightBlock | None:
        try:
            signed = SignedHeader(Header.decode(header), Commit.decode(commit))
            validators = self.validators(signed.header.validators_hash)
            next_validators = self.validators(signed.header.next_validators_hash)
        except MalformedBytes:
            return None
        if signed.header.height != height or signed.header.hash() != block_hash:
            return None
        if validators is None or next_validators is None:
            return None
        split = len(validators) * _PRIORITY_BYTES
        told = priorities or b""
        return LightBlock(
            signed,
            _with_priorities(validators, told[:split]),
            _with_priorities(next_validators, told[split:]),
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._declared():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _declared(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise TrustStoreFailed(
                f"trust store {self.path}: {error}",
                hint="check the disk; the file may be deleted, trust then begins at the root again",
            ) from error

    def _open(self) -> sqlite3.Connection:
        # Created by us first, because SQLite would create it with the permissions of the umask.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)
        try:
            switch_to_wal(db)
            # NORMAL may lose the newest blocks in a power cut, never the file; they are verified again.
            db.execute("PRAGMA synchronous = NORMAL")
            bring_up_to_date(db, SCHEMA, str(self.path), partial(keep_old_version, self.path))
            self._check_chain(db)
        except BaseException:
            db.close()
            raise
        return db

    def _check_chain(self, db: sqlite3.Connection) -> None:
        db.execute("INSERT OR IGNORE INTO facts VALUES ('chain_id', ?)", (self._chain_id,))
        (found,) = db.execute("SELECT value FROM facts WHERE name = 'chain_id'").fetchone()
        if found != self._chain_id:
            raise RootMismatch(
                f"trust store {self.path} has chain_id {found!r}, asked was {self._chain_id!r}",
                hint="use another home for another chain",
            )

    def _move_aside(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            damaged = self.path.with_name(self.path.name + suffix)
            if damaged.exists():
                damaged.replace(self.path.with_name(f"{self.path.name}{suffix}.damaged"))


def _insert(db: sqlite3.Connection, block: LightBlock) -> None:
    for members in (block.validators, block.next_validators):
        db.execute("INSERT OR IGNORE INTO validator_sets VALUES (?, ?)", (members.hash(), members.encode()))
    db.execute(
        "INSERT OR IGNORE INTO light_blocks VALUES (?, ?, ?, ?, ?)",
        (
            block.height,
            block.hash(),
            block.header.encode(),
            block.signed_header.commit.encode(),
            _priorities(block.validators) + _priorities(block.next_validators),
        ),
    )


def _sets_of(headers: Iterable[bytes]) -> set[bytes]:
    """Hashes of the validator sets that these encoded headers name; a damaged header names none."""
    found: set[bytes] = set()
    for raw in headers:
        with suppress(MalformedBytes):  # it is forgotten when it is read
            header = Header.decode(raw)
            found |= {header.validators_hash, header.next_validators_hash}
    return found


def _priorities(members: ValidatorSet) -> bytes:
    """Proposer priorities in the set's order, eight bytes each."""
    return b"".join(
        one.proposer_priority.to_bytes(_PRIORITY_BYTES, "big", signed=True) for one in members.validators
    )


def _with_priorities(members: ValidatorSet, told: bytes) -> ValidatorSet:
    """The set with the priorities of its height; as it is where an older version stored none."""
    if len(told) != len(members) * _PRIORITY_BYTES:
        return members
    places = range(0, len(told), _PRIORITY_BYTES)
    values = [int.from_bytes(told[at : at + _PRIORITY_BYTES], "big", signed=True) for at in places]
    return ValidatorSet.listed(
        replace(one, proposer_priority=value) for one, value in zip(members.validators, values, strict=True)
    )
