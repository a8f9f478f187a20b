"""A `dllm-node` whose state machine proposes what no block may hold, whenever it is its turn."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from dllm_protocol.consensus_params import BLOCK_TX_BYTES_MAX
from full_node.consensus.abci import requests, responses
from full_node.consensus.abci.responses import ProposalStatus, Response
from full_node.consensus.cometbft.driver import Driver
from tests.full_node.processes import Sender

GARBAGE = b"this is no transaction"


def no_transaction(_request: requests.PrepareProposal, _chain_id: str) -> tuple[bytes, ...]:
    """Bytes that nothing can be read from."""
    return (GARBAGE,)


def too_much(_request: requests.PrepareProposal, _chain_id: str) -> tuple[bytes, ...]:
    """More bytes than a block may hold."""
    return tuple(bytes([n]) * (BLOCK_TX_BYTES_MAX // 8) for n in range(9))


def nobody_pays(_request: requests.PrepareProposal, chain_id: str) -> tuple[bytes, ...]:
    """A sound transaction of an account that has nothing."""
    stranger = Sender.numbered(99)
    stranger.chain_id = chain_id
    return (stranger.transfer(bytes(20), 1),)


def twice(request: requests.PrepareProposal, _chain_id: str) -> tuple[bytes, ...]:
    """Each transaction that waits, two times."""
    return (*request.txs, *request.txs) or (GARBAGE,)


def far_too_many(_request: requests.PrepareProposal, _chain_id: str) -> tuple[bytes, ...]:
    """As many as fit into the bytes of a block, each of one byte."""
    return (b"x",) * (BLOCK_TX_BYTES_MAX // 8)


KINDS: tuple[Callable[[requests.PrepareProposal, str], tuple[bytes, ...]], ...] = (
    no_transaction,
    too_much,
    nobody_pays,
    twice,
    far_too_many,
)


def run() -> None:
    """`dllm-node`, with its proposals replaced and all of them found good."""
    from full_node.cli import run as run_node

    kinds = itertools.cycle(KINDS)

    def prepare(driver: Driver, request: requests.PrepareProposal) -> Response:
        return responses.PrepareProposal(next(kinds)(request, driver._chain_id))

    def process(_driver: Driver, _request: requests.ProcessProposal) -> Response:
        return responses.ProcessProposal(ProposalStatus.ACCEPT)

    Driver._prepare_proposal = prepare  # type: ignore[method-assign]  # that is what makes it hostile
    Driver._process_proposal = process  # type: ignore[method-assign]  # it votes for its own blocks
    run_node()
