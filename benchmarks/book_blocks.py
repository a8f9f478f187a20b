"""What the heaviest blocks take whose work grows with an offer book, beside a block of transfers of the same weight.

The book is the worst there is: a thousand offers of one price, and all but the last two are full, so that each session
hashes, looks at and notes down every one. Sessions are opened, and closed again in the next block. A block is as heavy
as one may be; the peer is a block of transfers of the same weight in the same state machine. Transactions are decoded
and their signatures verified before, as CheckTx does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from benchmarks.runner import Result
from dllm_protocol import state_keys
from dllm_protocol.actions import CloseSession, Transfer
from dllm_protocol.encoding import Record
from dllm_protocol.hashing import sha256
from dllm_protocol.offer_book import BookEntry, OfferBook, book_hash
from dllm_protocol.params import BLOCK_WEIGHT_MAX
from dllm_protocol.records import Offer
from dllm_protocol.results import ExecTxResult
from full_node.state_machine.context import BlockContext
from tests.full_node.state_machine.world import LAYERS, MODEL, PRICES, World, address, provider_id

NAME = "book-blocks"
OFFERS = 1_000
CAPACITY = 1_000_000
FEE_UDLLM = 10_000
ActionOf = Callable[[int], Record]
PEER = "a block of transfers as heavy"


def run() -> Iterator[Result]:
    """Seconds of a block of openings, and of a block of closings; seconds of a block of transfers."""
    transfers_s, _ = _full_block(World(), lambda _number: Transfer(address("bob"), 1))
    world = _world_with_full_book()
    openings_s, opened = _full_block(world, lambda number: world.opening(f"key {number}", deposit_udllm=1))
    sessions = [one.data for one in opened]
    close_s, closed = _block(world, [CloseSession(session, None, (), ()) for session in sessions])
    closings_s = close_s * BLOCK_WEIGHT_MAX / sum(one.gas_used for one in closed)
    yield Result.of(f"{NAME}/openings", openings_s, "s", PEER, transfers_s)
    yield Result.of(f"{NAME}/closings", closings_s, "s", PEER, transfers_s)


def _full_block(world: World, action: ActionOf) -> tuple[float, Sequence[ExecTxResult]]:
    """Executes as many of an action, each in a transaction of its own, as a block holds."""
    probe = world.sign("alice", action(-1), fee_udllm=FEE_UDLLM).encode()
    appraised = world.app.appraise(probe)
    assert appraised is not None
    return _block(world, [action(number) for number in range(BLOCK_WEIGHT_MAX // appraised.weight)])


def _block(world: World, actions: Sequence[Record]) -> tuple[float, Sequence[ExecTxResult]]:
    """Executes and commits one block; how long the execution took, and the results, all of which must be good."""
    sequence = world.account("alice").sequence
    raws = [
        world.sign("alice", action, sequence=sequence + place, fee_udllm=FEE_UDLLM).encode()
        for place, action in enumerate(actions)
    ]
    for raw in raws:
        world.app.check_tx(raw)
    world.height += 1
    world.time_ms += 200
    context = BlockContext(world.chain_id, world.height, world.time_ms * 1_000_000)
    began_s = time.perf_counter()
    outcome = world.app.finalize_block(context, raws)
    took_s = time.perf_counter() - began_s
    failed = [one.log for one in outcome.results if one.code]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(raws)} transactions failed, the first: {failed[0]}")
    world.reader.apply(outcome.changes.items())
    world.app.note_committed(world.height, world.time_ms * 1_000_000)
    return took_s, outcome.results


def _world_with_full_book() -> World:
    """A chain whose newest book has offers of one price, the two last ones with room, written as handlers would."""
    world = World()
    world.provide("bob")
    provider, offer = (
        world.provider("bob"),
        world.record(state_keys.offer(MODEL, provider_id("bob")), Offer),
    )
    state = world.overlay()
    entries = []
    for number in range(OFFERS):
        stranger = sha256(b"%d" % number)[:20]
        # Dearer, so that they come behind all that are full.
        with_room = number >= OFFERS - 2
        prices = replace(PRICES, kept_udllm=PRICES.kept_udllm + 1) if with_room else PRICES
        entries.append(BookEntry(stranger, stranger, 0, LAYERS, prices, CAPACITY, 1_000_000))
        state.write(state_keys.provider(stranger), replace(provider, owner=stranger, bond_udllm=0))
        state.write(
            state_keys.offer(MODEL, stranger),
            replace(
                offer,
                provider=stranger,
                prices=prices,
                capacity_sessions=CAPACITY,
                open_sessions=0 if with_room else CAPACITY,
            ),
        )
    head = world.head()
    book = OfferBook(MODEL, head.epoch, tuple(sorted(entries, key=lambda one: one.provider)))
    state.write(state_keys.offer_list(MODEL, head.epoch), book)
    state.write(state_keys.latest_offer_book(MODEL), replace(head, offers=OFFERS, book_hash=book_hash(book)))
    world.reader.apply(state.changes().items())
    world.app.note_committed(world.height, world.time_ms * 1_000_000)
    return world
