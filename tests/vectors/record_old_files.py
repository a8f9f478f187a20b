"""Records files as earlier versions wrote them, in `old_files/`: they are to be read for ever.

``python -m tests.vectors.record_old_files`` writes what is missing and never touches what is there.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from dllm_chat.wallet.keys import KeyTree
from dllm_chat.wallet.keystore import WalletSecret, seal_keystore
from dllm_chat.wallet.mnemonic import entropy_of, seed_of
from dllm_protocol.schema_steps import bring_up_to_date
from light_node.trust_store import SCHEMA
from tests.dllm_chat.wallet.parts import CHEAP, MNEMONIC, PASSWORD
from tests.light_node.signed_chain import CHAIN_ID, SignedChain

FOLDER = Path(__file__).with_name("old_files")
HEIGHTS = (3, 7)


def chain() -> SignedChain:
    """The chain whose light blocks the old trust store holds."""
    made = SignedChain(("a", "b", "c"))
    for _ in range(9):
        made.add()
    return made


def _trust_store_v1(path: Path) -> None:
    blocks = [chain().light_block(height) for height in HEIGHTS]
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        first = replace(SCHEMA, steps=SCHEMA.steps[:1])
        bring_up_to_date(database, first, "memory", lambda _version: None)
        database.execute("INSERT INTO facts VALUES ('chain_id', ?)", (CHAIN_ID,))
        for block in blocks:
            for members in (block.validators, block.next_validators):
                row = (members.hash(), members.encode())
                database.execute("INSERT OR IGNORE INTO validator_sets VALUES (?, ?)", row)
            commit = block.signed_header.commit.encode()
            database.execute(
                "INSERT INTO light_blocks VALUES (?, ?, ?, ?)",
                (block.height, block.hash(), block.header.encode(), commit),
            )
        lines = [f"PRAGMA {name} = {database.execute(f'PRAGMA {name}').fetchone()[0]};" for name in _NUMBERS]
        path.write_text("\n".join([*database.iterdump(), *lines]) + "\n", "utf-8")


def _keystore_v1(path: Path) -> None:
    entropy = entropy_of(MNEMONIC)
    public_key = KeyTree(seed_of(entropy, "")).account_key().public_key
    seal_keystore(
        path,
        WalletSecret(entropy),
        PASSWORD,
        public_key,
        cost=CHEAP,
        random_bytes=random.Random(11).randbytes,
    )


_NUMBERS = ("user_version", "application_id")
RECORDERS: Mapping[str, Callable[[Path], None]] = {
    "trust_store_v1.sql": _trust_store_v1,
    "keystore_v1.json": _keystore_v1,
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, record in RECORDERS.items():
        if not (FOLDER / name).exists():
            record(FOLDER / name)
