"""Founding a devnet: keys of all parts first, then the genesis that provides for them, the plan last of all."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from dllm_chat.contributing import packaged_model, run_json, slice_keys
from dllm_chat.devnet.chain import Holders, make_genesis
from dllm_chat.devnet.homes import OwnHome
from dllm_chat.devnet.parts import program
from dllm_chat.devnet.plan import (
    COMETBFT,
    MAX_VALIDATORS,
    SOLO,
    Folder,
    NodePlan,
    Plan,
    prepare_folder,
    write_plan,
)
from dllm_chat.devnet.slices import slots_of
from dllm_chat.packages import MANIFEST_FILE, run_packager
from dllm_chat.paths import find_paths, make_private_folder, write_private
from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.model_manifest import Manifest
from dllm_protocol.model_package.cuts import even_cuts, layer_sizes

INIT_TIMEOUT_S = 120.0
_AT_ONCE = 4
"""Programs that make keys at the same time."""
_NS_PER_MS = 1_000_000
log = logging.getLogger("dllm.devnet")

T = TypeVar("T")


async def found(folder: Folder, plan: Plan, fund: Sequence[bytes] = ()) -> Genesis:
    """Make the devnet's files; a run that is killed leaves no plan, and the next one begins anew.

    The devnet's own home gets a play wallet. Its account 0 is the devnet's, account N owns validator N.

    Args:
        fund: addresses of other wallets to begin with as much as the devnet's own.

    Raises:
        WorkerFailed, PackagerFailed: a program that makes keys or cuts the model failed, and what it said.
        LayersRefused: the model has too few layers for so many slices.
        DevnetRefused: the folder holds something else.
    """
    await asyncio.to_thread(prepare_folder, folder)
    home = OwnHome(find_paths(folder.root))
    names = [node.name for node in plan.nodes]
    with await asyncio.to_thread(home.make_wallet) as wallet:
        own = wallet.account_key().address
        owners = [wallet.account_key(index).address for index in range(1, len(names) + 1)]
    room = asyncio.Semaphore(_AT_ONCE)
    keys, workers, faucet, model = await asyncio.gather(
        _all(room, [_node_keys(folder, name) for name in names]),
        _all(room, [_operators(folder, plan, name) for name in plan.workers]),
        _faucet_account(folder),
        _model(folder, plan),
    )
    manifest, cuts = model
    nodes = tuple(
        replace(node, peer_id=str(one["node_id"])) for node, one in zip(plan.nodes, keys, strict=True)
    )
    plan = replace(plan, nodes=nodes, cuts=cuts)
    genesis = make_genesis(
        Holders(
            wallets=(own, *fund),
            workers=[operator for of_one in workers for operator in of_one],
            faucet=faucet,
            validators=[
                (bytes.fromhex(one["public_key"]), owner) for one, owner in zip(keys, owners, strict=True)
            ],
            model=manifest,
        ),
        seats=1 if plan.engine == SOLO else MAX_VALIDATORS,
        genesis_time_ms=time.time_ns() // _NS_PER_MS,
        nonce=secrets.token_bytes(32),
    )
    await asyncio.to_thread(write_private, folder.genesis, genesis.encode())
    await _all(room, [_init(folder, plan, node) for node in nodes])
    await asyncio.to_thread(home.bind_wallet, chain_id_of(genesis))
    await asyncio.to_thread(write_plan, folder, plan)
    return genesis


async def _operators(folder: Folder, plan: Plan, name: str) -> list[bytes]:
    """Accounts that a worker sends transactions from: one for each of its slices."""
    home = make_private_folder(folder.worker(name))
    slices = len(slots_of(plan.slots, name))
    return [one["operator"] for one in await slice_keys(home, max(1, slices))]


async def _model(folder: Folder, plan: Plan) -> tuple[Manifest | None, tuple[int, ...]]:
    """What the workers serve, as the registry takes it, and where it is cut; None where there are no workers.

    It is registered in genesis: workers that came to register the same model at once would be in each other's way.
    """
    if not plan.workers:
        return None, ()
    model = Path(plan.model) if plan.model else packaged_model()
    return await _package(folder, plan, model) if plan.split else (await _manifest(folder, plan, model), ())


async def _package(folder: Folder, plan: Plan, model: Path) -> tuple[Manifest, tuple[int, ...]]:
    """The model in pieces, once for all workers."""
    make_private_folder(folder.package.parent)
    words = ["pack", f"--out={folder.package}", "--json", "--", str(model)]
    told = await run_packager(words, lambda line: log.info("%s", line))
    manifest = Manifest.decode(await asyncio.to_thread((folder.package / MANIFEST_FILE).read_bytes))
    sizes = layer_sizes(manifest, is_tied=bool(told["tied"]))
    return manifest, even_cuts(sizes, plan.split)


async def _manifest(folder: Folder, plan: Plan, model: Path) -> Manifest:
    out = folder.root / "manifest"
    words = ["manifest", "--home", str(make_private_folder(folder.worker(plan.workers[0])))]
    words += ["--model", str(model), "--out", str(out), "--json"]
    await run_json([sys.executable, "-m", "local_worker", *words], INIT_TIMEOUT_S)
    return Manifest.decode(await asyncio.to_thread(out.read_bytes))


async def _node_keys(folder: Folder, name: str) -> dict[str, Any]:
    home = make_private_folder(folder.node(name))
    return await run_json(program("key", "--home", str(home), "--json"), INIT_TIMEOUT_S)


async def _faucet_account(folder: Folder) -> bytes:
    home = make_private_folder(folder.faucet)
    answer = await run_json(program("faucet", "--home", str(home), "--init", "--json"), INIT_TIMEOUT_S)
    return bytes.fromhex(answer["account"])


async def _init(folder: Folder, plan: Plan, node: NodePlan) -> dict[str, Any]:
    """A node's folder; it stays connected with all others."""
    words = ["init", "--home", str(folder.node(node.name)), "--genesis", str(folder.genesis)]
    words += ["--engine", plan.engine, "--json"]
    if plan.engine == COMETBFT:
        for other in plan.nodes:
            words += [] if other == node else ["--peer", other.peer_address]
    return await run_json(program(*words), INIT_TIMEOUT_S)


async def _all(room: asyncio.Semaphore, work: Sequence[Awaitable[T]]) -> list[T]:
    """Everything, as many at a time as there is room for, in order."""

    async def one(part: Awaitable[T]) -> T:
        async with room:
            return await part

    return list(await asyncio.gather(*(one(part) for part in work)))
