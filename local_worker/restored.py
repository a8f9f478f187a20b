"""A worker whose ledger came from a backup, and which therefore does not know what it acknowledged last.

Two acknowledgements of one voucher number that differ are slashed. A ledger from earlier would take a number a second
time, so a restored worker serves no session that may have been open before: none that was opened up to the epoch in
which it first started again. What it holds of those sessions it still claims. Whoever restores a worker's folder leaves
the mark; a ledger that was put back by hand is found out where the chain has paid more than it knows of.
"""

from __future__ import annotations

from pathlib import Path

from local_worker.chain import Chain
from local_worker.files import write_private
from local_worker.store import Store

MARK = "restored"
"""A file in the worker's folder."""
SLICES_FOLDER = "slices"
"""In a worker's folder: those of its second slice and further ones, by number."""
_FACT = "restored_epoch"


def mark_slices(home: Path) -> None:
    """Whoever restores a worker's folder leaves one mark; it holds for the ledgers of all of its slices."""
    if not (home / MARK).exists():
        return
    for folder in sorted((home / SLICES_FOLDER).glob("*/")):
        write_private(folder / MARK, b"")


async def last_refused_epoch(home: Path, store: Store, chain: Chain) -> int | None:
    """Sessions opened in this epoch or before are not served; None where the ledger was never restored.

    Looks at the chain's time where the mark is new, and keeps what it found.
    """
    mark = home / MARK
    if mark.exists():
        since_genesis_ms = max(0, await chain.time_ms() - chain.genesis_time_ms)
        await store.set_fact(_FACT, str(since_genesis_ms // chain.params.epoch_ms))
        mark.unlink()
    stored = await store.fact(_FACT)
    return None if stored is None else int(stored)
