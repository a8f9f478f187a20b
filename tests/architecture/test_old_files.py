"""Files that earlier versions wrote are read by this one, and become today's where they are written again."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

from dllm_chat.wallet import keystore
from dllm_chat.wallet.keystore import open_keystore
from dllm_chat.wallet.mnemonic import entropy_of
from light_node.trust_store import SCHEMA, TrustStore
from tests.dllm_chat.wallet.parts import MNEMONIC, PASSWORD
from tests.light_node.signed_chain import CHAIN_ID
from tests.vectors.record_old_files import FOLDER, HEIGHTS, RECORDERS, chain


def test_every_recorded_file_is_there() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(RECORDERS)


def test_the_first_trust_store_comes_along_with_what_it_trusted(tmp_path: Path) -> None:
    path = tmp_path / "light.db"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript((FOLDER / "trust_store_v1.sql").read_text("utf-8"))
        assert old.execute("PRAGMA user_version").fetchone() == (1,)
        trusted = dict(old.execute("SELECT height, hash FROM light_blocks"))
    with TrustStore(path, CHAIN_ID) as store:
        assert set(trusted) == set(HEIGHTS)
        for height, header_hash in trusted.items():
            found = store.at(height)
            assert found is not None
            assert found.hash() == header_hash
            assert found.validators.hash() == found.header.validators_hash
        store.add(chain().light_block(9))
        latest = store.latest()
        assert latest is not None
        assert latest.height == 9
    with contextlib.closing(sqlite3.connect(path)) as look:
        assert look.execute("PRAGMA user_version").fetchone() == (SCHEMA.version,)
    with contextlib.closing(sqlite3.connect(tmp_path / "light.db.v1")) as kept:
        assert kept.execute("SELECT count(*) FROM light_blocks").fetchone() == (len(HEIGHTS),)


def test_the_first_keystore_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "keystore.json"
    shutil.copyfile(FOLDER / "keystore_v1.json", path)
    opened = open_keystore(path, PASSWORD)
    assert (opened.version, opened.secret.entropy) == (1, entropy_of(MNEMONIC))
    assert json.loads(path.read_bytes())["version"] <= keystore.VERSION
