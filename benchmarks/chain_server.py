"""``python -m benchmarks.chain_server FOLDER HEIGHTS VALIDATORS``: a made chain behind a full node's own RPC.

The blocks are written straight into a node's store, because signing is all that a benchmark wants of consensus; store
and RPC are those of `dllm-node`. Prints one JSON line when it listens and ends with its standard input. Light clients
that are compared ask the same process, so what the server costs, both pay.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.signed_chain import BLOCK_MS, SignedChain, make_chain
from dllm_protocol.block import Block, block_id_of
from dllm_protocol.commit import Commit
from dllm_protocol.consensus_params import ConsensusParams
from dllm_protocol.genesis import GENESIS_VERSION, Genesis
from dllm_protocol.params import NETWORK_PARAMS
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import ValidatorSet
from full_node.consensus.chain_state import validator_set_document
from full_node.consensus.engine import EngineStopped, MempoolView, Submission
from full_node.consensus.events import EventBus
from full_node.rpc.context import NodeIdentity, RpcContext
from full_node.rpc.guard import Door
from full_node.rpc.server import RpcServer
from full_node.state.blocks import BlockRecord, write_block, write_validator_set
from full_node.state.schema import open_writer
from full_node.state.store import Store


@dataclass(frozen=True, slots=True)
class ShownChain:
    """A chain that a server process shows."""

    chain_id: str
    address: str
    """host:port of its RPC."""
    height: int
    root_hash: str
    """Upper hex of the first header's hash."""
    tip_hash: str
    """Upper hex of the last header's hash."""


@contextmanager
def chain_server(folder: Path, heights: int, validators: int) -> Iterator[ShownChain]:
    """Starts one and ends it; making the chain takes a few seconds for tens of thousands of headers."""
    command = [sys.executable, "-m", "benchmarks.chain_server", str(folder), str(heights), str(validators)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("the server of the made chain did not start")
            yield ShownChain(**json.loads(line))
        finally:
            process.stdin.close()


class ShownEngine:
    """What the RPC needs of an engine, for a chain that stands still."""

    def __init__(self, chain: SignedChain, store: Store) -> None:
        self.chain_id = chain.chain_id
        self.store = store
        self.events = EventBus()
        self.params = ConsensusParams()
        self.validators: ValidatorSet = chain.members
        self.public_key = chain.members.validators[0].public_key
        self.genesis = Genesis(
            version=GENESIS_VERSION,
            name="bench",
            genesis_time_ms=chain.signed_header(1).header.time.to_ms(),
            address_prefix="local",
            params=NETWORK_PARAMS,
            accounts=(),
            models=(),
            validators=(),
            nonce=bytes(32),
        )

    async def submit(self, raw: bytes) -> Submission:
        """Nothing is ordered here. Raises EngineStopped."""
        raise EngineStopped(f"a made chain takes no transaction, got one of {len(raw)} bytes")

    async def check(self, raw: bytes) -> Submission:
        """Nothing is ordered here. Raises EngineStopped."""
        return await self.submit(raw)

    async def pending(self, limit: int) -> MempoolView:
        """Nothing waits, whatever the limit."""
        del limit
        return MempoolView((), 0, 0)

    async def query(self, path: str, data: bytes) -> bytes | None:
        """There is no state to ask for."""
        del path, data
        return None


def write_chain(chain: SignedChain, database: Path) -> None:
    """Writes every block and the set as a node would have, in one transaction."""
    connection = open_writer(database)
    try:
        connection.execute("BEGIN IMMEDIATE")
        last_commit = Commit.empty()
        for height in range(1, chain.height + 1):
            signed = chain.signed_header(height)
            block = Block(signed.header, (), (), last_commit)
            last_commit = signed.commit
            write_block(
                connection,
                BlockRecord(
                    height=height,
                    hash=signed.header.hash(),
                    header=signed.header.encode(),
                    block_id=block_id_of(block).encode(),
                    seen_commit=signed.commit.encode(),
                    block=block.encode(),
                    results=b"{}",
                ),
            )
        members = json.dumps(validator_set_document(chain.members)).encode()
        write_validator_set(connection, chain.members.hash(), members)
        connection.execute("COMMIT")
    finally:
        connection.close()


async def _serve(chain: SignedChain, store: Store) -> None:
    server = RpcServer(RpcContext(ShownEngine(chain, store), NodeIdentity("bench", "0")), Door())
    address = await server.start()
    shown = ShownChain(
        chain.chain_id,
        address,
        chain.height,
        chain.signed_header(1).header.hash().hex().upper(),
        chain.signed_header(chain.height).header.hash().hex().upper(),
    )
    print(json.dumps(asdict(shown)), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()


def main(folder: str, heights: str, validators: str) -> None:
    """Make, write, serve."""
    begins = Timestamp.from_ns(time.time_ns()).add_ms(-int(heights) * BLOCK_MS)
    chain = make_chain(int(heights), int(validators), begins)
    database = Path(folder) / "chain.db"
    write_chain(chain, database)
    store = Store(database)
    try:
        asyncio.run(_serve(chain, store))
    finally:
        store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
