"""Commits versions as fast as it can and prints each one that is durable; its parent kills it."""

from __future__ import annotations

import random
import sys
from hashlib import sha256
from pathlib import Path


def changes_of(version: int) -> dict[bytes, bytes | None]:
    """What every writer puts into this version."""
    rng = random.Random(version)
    return {
        f"key/{rng.randrange(200)}".encode(): None if rng.random() < 0.3 else rng.randbytes(8)
        for _ in range(30)
    } | {b"always": b"%d" % version}


def main(path: Path) -> None:
    """Writes until it is killed."""
    from full_node.state.blocks import BlockRecord
    from full_node.state.store import Store

    store = Store(path, proof_window=5)
    while True:
        version = store.version + 1
        _, batch = store.put(version, changes_of(version))
        name = sha256(b"%d" % version).digest()
        record = BlockRecord(version, name, b"h", b"i", b"c", bytes(20_000), b"[]") if version else None
        store.commit(batch, record, meta={"engine": b"%d" % version}, validator_sets={})
        print(version, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
