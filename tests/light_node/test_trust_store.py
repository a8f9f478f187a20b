"""The trust store: survives a kill, damage and pruning, and never trusts two headers at one height."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.validator_set import ValidatorSet
from light_node.errors import ForkDetected, RootMismatch, TrustStoreFailed
from light_node.trust_store import KEEP_BLOCKS, TrustStore
from tests.conftest import ROOT
from tests.light_node.signed_chain import CHAIN_ID, SignedChain

_WRITER = """
import sys
from pathlib import Path
from light_node.trust_store import TrustStore
from tests.light_node.signed_chain import CHAIN_ID, SignedChain

chain = SignedChain(("a", "b"))
store = TrustStore(Path(sys.argv[1]), CHAIN_ID)
for height in range(1, 100_000):
    chain.add()
    store.add(chain.light_block(height))
    sys.stdout.write(f"{height}\\n")
    sys.stdout.flush()
"""

_OPENER = """
import sys
from pathlib import Path
from light_node.trust_store import TrustStore
from tests.light_node.signed_chain import CHAIN_ID, SignedChain

chain = SignedChain(("a", "b"))
chain.grow(4)
with TrustStore(Path(sys.argv[1]), CHAIN_ID) as store:
    store.add(chain.light_block(int(sys.argv[2])))
"""


def test_what_was_added_is_read_again(store: TrustStore, chain: SignedChain) -> None:
    for height in (1, 5, 9):
        store.add(chain.light_block(height))
    assert store.count() == 3
    assert store.latest() == chain.light_block(9)
    assert store.earliest() == chain.light_block(1)
    assert store.at(5) == chain.light_block(5)
    assert store.at(6) is None
    assert store.at_or_below(8) == chain.light_block(5)
    assert store.at_or_above(6) == chain.light_block(9)
    assert store.validators(chain.set_at(1).hash()) == chain.set_at(1)


def test_files_are_the_owner_s_alone(store: TrustStore) -> None:
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_two_headers_at_one_height_are_a_fork(store: TrustStore, chain: SignedChain) -> None:
    honest = chain.light_block(4)
    store.add(honest)
    store.add(honest)
    header = replace(honest.header, app_hash=b"\x05" * 32)
    other = replace(honest, signed_header=replace(honest.signed_header, header=header))
    with pytest.raises(ForkDetected) as caught:
        store.add(other)
    assert honest.hash().hex() in caught.value.message
    assert other.hash().hex() in caught.value.message
    assert store.at(4) == honest


def test_the_oldest_go_first_and_their_sets_with_them(tmp_path: Path) -> None:
    made = SignedChain(("a",))
    for name in "bcdefghijk":
        made.add(next_names=(name,))
    with TrustStore(tmp_path / "trust.db", CHAIN_ID, keep_blocks=3) as store:
        for height in range(1, 11):
            store.add(made.light_block(height))
        assert store.count() == 3
        earliest = store.earliest()
        assert earliest is not None
        assert earliest.height == 8
        assert store.validators(made.set_at(2).hash()) is None
        assert store.at(9) == made.light_block(9)


def test_a_thousand_light_blocks_are_kept_and_the_file_stops_growing(tmp_path: Path) -> None:
    made, other = SignedChain(("a", "b")), SignedChain(("a", "c"))
    made.grow(1)
    other.grow(1)
    first, changed = made.light_block(1), other.light_block(1)
    with TrustStore(tmp_path / "trust.db", CHAIN_ID) as store:
        sizes = []
        for height in range(1, 2401):
            block = changed if height > 1300 else first
            header = replace(block.header, height=height)
            store.add(replace(block, signed_header=replace(block.signed_header, header=header)))
            if height in (1200, 2400):
                sizes.append(_pages(store))
        assert store.count() == KEEP_BLOCKS == 1000
        earliest = store.earliest()
        assert earliest is not None
        assert earliest.height == 1401
        assert store.validators(first.validators.hash()) is None
        assert store.validators(changed.validators.hash()) == changed.validators
        assert sizes[1] < 1.1 * sizes[0], "twice as many blocks need no more pages"


def _pages(store: TrustStore) -> int:
    with closing(sqlite3.connect(store.path)) as db:
        return int(db.execute("PRAGMA page_count").fetchone()[0])


def test_a_damaged_header_does_not_stand_in_the_way_of_pruning(tmp_path: Path, chain: SignedChain) -> None:
    with TrustStore(tmp_path / "trust.db", CHAIN_ID, keep_blocks=3) as store:
        for height in (1, 2, 3):
            store.add(chain.light_block(height))
        with closing(sqlite3.connect(store.path)) as db, db:
            db.execute("UPDATE light_blocks SET header = x'00' WHERE height < 3")
        for height in (4, 5, 6):
            store.add(chain.light_block(height))
        assert store.count() == 3
        assert store.latest() == chain.light_block(6)


def test_another_process_sees_what_this_one_added(store: TrustStore, chain: SignedChain) -> None:
    with TrustStore(store.path, CHAIN_ID) as other:
        store.add(chain.light_block(3))
        assert other.latest() == chain.light_block(3)
        other.add(chain.light_block(4))
        assert store.latest() == chain.light_block(4)


def test_a_store_belongs_to_one_chain(store: TrustStore) -> None:
    with pytest.raises(RootMismatch, match="'signed-chain', asked was 'other'"):
        TrustStore(store.path, "other")


def test_a_row_that_was_changed_is_forgotten(store: TrustStore, chain: SignedChain) -> None:
    store.add(chain.light_block(3))
    store.add(chain.light_block(7))
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE light_blocks SET header = ? WHERE height = 7", (chain.blocks[6].header.encode(),))
    db.close()
    assert store.latest() == chain.light_block(3)
    assert store.count() == 1


def test_a_damaged_validator_set_takes_however_many_blocks_share_it(
    store: TrustStore, chain: SignedChain
) -> None:
    store.add(chain.light_block(3))
    with sqlite3.connect(store.path) as db:
        copy = (
            "INSERT INTO light_blocks SELECT ?, hash, header, commit_bytes, priorities "
            "FROM light_blocks WHERE height = 3"
        )
        db.executemany(copy, [(height,) for height in range(10, 1510)])
        db.execute("UPDATE validator_sets SET members = x'00'")
    db.close()
    assert store.latest() is None
    assert store.count() == 0


def test_each_block_keeps_its_own_proposer_priorities(store: TrustStore, chain: SignedChain) -> None:
    turning = ValidatorSet.genesis(chain.set_at(1).validators)
    for height in (3, 4, 5):
        block = replace(chain.light_block(height), validators=turning, next_validators=turning.incremented(1))
        store.add(block)
        found = store.at(height)
        assert found is not None
        assert found == block
        assert found.validators.priority_hash() == turning.priority_hash()
        assert found.next_validators.priority_hash() != turning.priority_hash()
        turning = turning.incremented(1)
    assert len({one.validators.hash() for height in (3, 4, 5) if (one := store.at(height))}) == 1


def test_a_row_of_an_older_version_has_no_priorities_and_is_good(
    store: TrustStore, chain: SignedChain
) -> None:
    store.add(chain.light_block(3))
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE light_blocks SET priorities = NULL")
    db.close()
    assert store.latest() == chain.light_block(3)


@pytest.mark.parametrize(
    "content", [b"\0" * 8192, b"not a database at all, and long enough to be read" * 100]
)
def test_a_damaged_file_is_moved_aside(tmp_path: Path, content: bytes, chain: SignedChain) -> None:
    path = tmp_path / "trust.db"
    path.write_bytes(content)
    with TrustStore(path, CHAIN_ID) as store:
        assert store.latest() is None
        store.add(chain.light_block(1))
    assert (tmp_path / "trust.db.damaged").read_bytes()[:8192] == content[:8192]


def test_a_killed_writer_loses_nothing_that_it_reported(tmp_path: Path) -> None:
    path = tmp_path / "trust.db"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert writer.stdout is not None
    reported = 0
    for line in writer.stdout:
        reported = int(line)
        if reported == 30:
            os.kill(writer.pid, signal.SIGKILL)
            break
    writer.wait()
    writer.stdout.close()
    with TrustStore(path, CHAIN_ID) as store:
        latest = store.latest()
        assert latest is not None
        assert latest.height >= reported
        assert store.count() == latest.height


def test_replacing_the_root_forgets_everything_else(store: TrustStore, chain: SignedChain) -> None:
    store.add(chain.light_block(2))
    store.add(chain.light_block(3))
    store.replace_all(chain.light_block(8))
    assert store.count() == 1
    assert store.latest() == chain.light_block(8)


def test_a_folder_that_is_a_file_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("in the way")
    with pytest.raises(TrustStoreFailed, match="folder"):
        TrustStore(tmp_path / "folder" / "trust.db", CHAIN_ID)


def test_damage_found_later_is_a_named_error(store: TrustStore, chain: SignedChain) -> None:
    for height in range(1, 11):
        store.add(chain.light_block(height))
    store.close()
    with pytest.raises(TrustStoreFailed):
        store.latest()


def test_many_processes_open_a_new_store_at_once(tmp_path: Path) -> None:
    path = tmp_path / "trust.db"
    openers = [
        subprocess.Popen([sys.executable, "-c", _OPENER, str(path), str(number)], cwd=ROOT)
        for number in range(1, 5)
    ]
    assert [one.wait() for one in openers] == [0, 0, 0, 0]
    with TrustStore(path, CHAIN_ID) as store:
        assert store.count() == 4
    assert not list(tmp_path.glob("*.damaged"))
