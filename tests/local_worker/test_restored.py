"""A worker with a ledger from earlier acknowledges nothing twice: it does not serve what may have been open before."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dllm_chat.backup.home import RESTORED
from dllm_protocol.signing import SeedSigner
from light_node.channel.errors import SaidGoodbye
from light_node.sqlite_files import copy_database
from local_worker.restored import MARK, last_refused_epoch
from local_worker.store import Store
from tests.local_worker.clients import Client
from tests.local_worker.doubles import ChainDouble
from tests.local_worker.workers import running_worker

PROMPT = [1, 300, 301, 302]


def test_who_leaves_the_mark_and_who_looks_for_it_call_it_the_same() -> None:
    assert MARK == RESTORED


async def test_the_epoch_is_kept_over_restarts_and_the_mark_is_gone(tmp_path: Path) -> None:
    chain = ChainDouble(b"\1" * 20)
    chain.genesis_time_ms, chain.now_ms = 1_000_000, 1_000_000 + 5 * chain.params.epoch_ms + 1
    store = Store(tmp_path / "worker.db")
    assert await last_refused_epoch(tmp_path, store, chain) is None
    (tmp_path / MARK).touch()
    assert await last_refused_epoch(tmp_path, store, chain) == 5
    assert not (tmp_path / MARK).exists()
    chain.now_ms += 10 * chain.params.epoch_ms
    assert await last_refused_epoch(tmp_path, store, chain) == 5
    await store.close()


async def test_a_restored_worker_serves_new_sessions_and_none_from_before(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with running_worker(tmp_path, tiny_model) as worker:
        chain = worker.chain
        chain.genesis_time_ms = chain.now_ms
        client = await Client.connect(chain, worker.provider, 1)
        await client.ask(0, PROMPT)
        session = client.session
        await client.channel.close()
    # The backup was taken before that question: the ledger that comes back has never heard of the session.
    (tmp_path / "worker.db").unlink()
    (tmp_path / MARK).touch()
    async with running_worker(tmp_path, tiny_model, chain) as worker:
        with pytest.raises(SaidGoodbye, match=r"restored from a backup in epoch 0"):
            await Client.connect(chain, worker.provider, 1, session=session)
        key = SeedSigner(b"\x0c" * 32)
        later = chain.open_session(worker.provider, key)
        chain.change(later, opened_epoch=1)
        fresh = await Client.connect(chain, worker.provider, 12, session=later)
        await fresh.ask(0, PROMPT)
        await fresh.channel.close()


async def test_a_ledger_that_was_put_back_by_hand_is_found_out(tmp_path: Path, tiny_model: Path) -> None:
    home, copy = tmp_path / "home", tmp_path / "worker.db"
    async with running_worker(home, tiny_model) as worker:
        chain = worker.chain
        client = await Client.connect(chain, worker.provider, 1)
        await client.ask(0, PROMPT)
        copy_database(home / "worker.db", copy)
        await client.ask(len(PROMPT), [5] * 300)
        row = await worker.slice.store.row(client.session)
        assert row is not None
        assert row.standing.voucher is not None
        claimed = row.standing.voucher.voucher.legs
        await client.channel.close()
    chain.change(client.session, legs=claimed)
    for leftover in home.glob("worker.db*"):
        leftover.unlink()
    shutil.copyfile(copy, home / "worker.db")
    async with running_worker(home, tiny_model, chain) as worker:
        with pytest.raises(SaidGoodbye, match="it is a copy from earlier"):
            await Client.connect(chain, worker.provider, 1, session=client.session)
