"""Who got tokens lately, on disk: limits hold across restarts, and a crash before a payment gives nobody two.

A grant is written before it is paid, and taken back where it is certain that it was not. The limit of all grants
together bounds the table as well.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Self

from dllm_protocol.schema_steps import Schema, bring_up_to_date
from full_node.faucet.errors import FaucetRefused, LimitReached
from full_node.sqlite_files import keep_old_version

MAX_IN_TOTAL = 100_000
MAX_WINDOW_S = 366 * 24 * 3600
_IPV6_PREFIX_BITS = 64
"""One household has so many addresses: they count as one client."""
_VERSION_1 = (
    """
    CREATE TABLE grants (
        id INTEGER PRIMARY KEY, at_s INTEGER NOT NULL, address BLOB NOT NULL, client TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX grants_by_time ON grants (at_s)",
)
SCHEMA = Schema("faucet's grants", 0x444C4C46, (_VERSION_1,))  # "DLLF"


@dataclass(frozen=True, slots=True)
class Limits:
    """How often tokens are given within the last ``window_s`` seconds."""

    window_s: int = 24 * 3600
    per_address: int = 1
    per_client: int = 3
    in_total: int = 1_000

    def check(self) -> Self:
        """These limits. Raises FaucetRefused where they make no sense."""
        if not 1 <= self.window_s <= MAX_WINDOW_S:
            raise FaucetRefused(f"the window is {self.window_s} s; it must be 1 to {MAX_WINDOW_S}")
        if not 1 <= self.per_address <= self.in_total or not 1 <= self.per_client <= self.in_total:
            raise FaucetRefused(
                f"{self.per_address} grants an address and {self.per_client} a client must be 1 to {self.in_total}, "
                "the limit of all together"
            )
        if self.in_total > MAX_IN_TOTAL:
            raise FaucetRefused(f"{self.in_total} grants in all are more than {MAX_IN_TOTAL}")
        return self


class Grants:
    """The grants of one faucet. One process at a time: the caller holds the folder."""

    def __init__(self, path: Path, limits: Limits, now_s: Callable[[], int]) -> None:
        """Open or make the file.

        Args:
            now_s: seconds since 1970.

        Raises:
            SchemaRefused: another program's file, or a newer version's.
        """
        self._limits = limits
        self._now_s = now_s
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            bring_up_to_date(self._db, SCHEMA, str(path), partial(keep_old_version, path))
        except BaseException:
            self._db.close()
            raise

    def reserve(self, address: bytes, client: str) -> int:
        """Write down a grant that is about to be paid; returns its number.

        Raises:
            LimitReached: the address, the client or everybody together got enough.
        """
        now_s = self._now_s()
        self._forget_old(now_s)
        with self._transaction():
            for what, limit, where, value in (
                ("this address", self._limits.per_address, "address = ?", (address,)),
                ("you", self._limits.per_client, "client = ?", (client,)),
                ("everybody together", self._limits.in_total, "1", ()),
            ):
                self._check(what, limit, where, value, now_s)
            row = self._db.execute(
                "INSERT INTO grants (at_s, address, client) VALUES (?, ?, ?)", (now_s, address, client)
            )
        if row.lastrowid is None:
            raise FaucetRefused("the grant was not written")
        return row.lastrowid

    def release(self, number: int) -> None:
        """The grant was not paid, for certain: it does not count."""
        self._db.execute("DELETE FROM grants WHERE id = ?", (number,))

    def left_in_total(self) -> int:
        """How many grants there are left for everybody now."""
        self._forget_old(self._now_s())
        with closing(self._db.execute("SELECT count(*) FROM grants")) as rows:
            return max(0, self._limits.in_total - int(rows.fetchone()[0]))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _check(self, what: str, limit: int, where: str, value: tuple[object, ...], now_s: int) -> None:
        query = f"SELECT at_s FROM grants WHERE {where} ORDER BY at_s DESC LIMIT ?"  # noqa: S608 - our own words
        with closing(self._db.execute(query, (*value, limit))) as rows:
            times = [int(at_s) for (at_s,) in rows]
        if len(times) >= limit:
            retry_s = max(1, times[-1] + self._limits.window_s - now_s)
            raise LimitReached(
                f"{what} got tokens {len(times)} times in the last {self._limits.window_s} s, the limit is {limit}",
                retry_s,
                hint=f"ask again in {retry_s} s",
            )

    def _forget_old(self, now_s: int) -> None:
        """What is too old counts no more; what comes from the future, of a clock set back, counts from now."""
        with self._transaction():
            self._db.execute("DELETE FROM grants WHERE at_s <= ?", (now_s - self._limits.window_s,))
            self._db.execute("UPDATE grants SET at_s = ? WHERE at_s > ?", (now_s, now_s))


def client_of(remote: str | None) -> str:
    """How a client is counted: its IPv4 address, or the first half of its IPv6 address."""
    try:
        address = ip_address((remote or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address, _IPV6_PREFIX_BITS), strict=False))
