"""Making a node's folder: `dllm-node init`, `key` and `join`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from dllm_protocol.actions.validators import key_proof_text
from dllm_protocol.address import decode_address
from dllm_protocol.bundle import NetworkBundle, SignedBundle, fingerprint
from dllm_protocol.errors import MalformedBytes, UsageRefused
from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.params import NETWORK_PARAMS
from full_node.command_line import AsJson, Home, report
from full_node.consensus.cometbft.config import StateSyncPlan
from full_node.consensus.cometbft.files import EngineFolder, node_id, prepare_folder
from full_node.files import make_private_folder
from full_node.founding import Founding, found_chain, own_validator, parse_account, parse_validator
from full_node.home import HomeRefused, NodeHome, read_genesis, write_genesis
from full_node.keys import create_key, load_key
from full_node.settings import COMETBFT, SOLO, NodeSettings, read_settings, write_settings
from full_node.state_machine.genesis import check_genesis

BUNDLE_BYTES_MAX = 64 << 20

Engine = Annotated[str, typer.Option(help="Who orders transactions: solo (one validator) or cometbft.")]
Peers = Annotated[
    list[str] | None, typer.Option("--peer", help="ID@HOST:PORT to stay connected with; repeatable.")
]
Seeds = Annotated[
    list[str] | None, typer.Option("--seed", help="ID@HOST:PORT to ask for more addresses; repeatable.")
]


def init(
    home: Home,
    engine: Engine = "",
    chain_prefix: Annotated[str, typer.Option(help="Bech32 prefix of the chain's addresses.")] = "local",
    name: Annotated[str, typer.Option(help="First part of the chain id.")] = "dllm-local",
    genesis: Annotated[Path | None, typer.Option(help="Begin from this genesis file instead.")] = None,
    account: Annotated[
        list[str] | None, typer.Option(help="ADDRESS=DLLM that an account starts with; repeatable.")
    ] = None,
    validator: Annotated[
        list[str] | None,
        typer.Option(
            help="KEY:OWNER:STAKE of the first set, stake in DLLM; repeatable. Else this node alone."
        ),
    ] = None,
    owner: Annotated[
        str, typer.Option(help="Whose stake stands behind the validator key; else the key's own account.")
    ] = "",
    peer: Peers = None,
    seed: Seeds = None,
    as_json: AsJson = False,
) -> None:
    """Make a validator's folder: its keys, and a new chain or one that a genesis file begins."""

    def work() -> dict[str, Any]:
        place = NodeHome(home)
        public_key = _make_keys(place)
        settings = read_settings(place).with_(engine, tuple(peer or ()), tuple(seed or ()))
        if genesis is not None:
            made = read_genesis(genesis)
        elif place.genesis.exists():
            made = read_genesis(place.genesis)
        else:
            first_set = [parse_validator(one, chain_prefix) for one in validator or ()]
            made = found_chain(
                Founding(
                    name,
                    chain_prefix,
                    first_set or [own_validator(public_key, owner, chain_prefix)],
                    [parse_account(one, chain_prefix) for one in account or ()],
                    NETWORK_PARAMS.max_validators if settings.engine == COMETBFT else 1,
                )
            )
        _settle(place, made, settings)
        return _described(place, made)

    report(work, as_json, lambda data: f"chain {data['chain_id']} in {data['home']}")


def key(
    home: Home,
    owner: Annotated[
        str, typer.Option(help="Agree to sign for this address's stake; prints the word for its wallet.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Print the validator's public key, making one when there is none yet."""

    def work() -> dict[str, Any]:
        place = NodeHome(home)
        data = {"public_key": _make_keys(place).hex(), "node_id": node_id(EngineFolder(place.cometbft))}
        if owner:
            genesis = read_genesis(place.genesis)
            staker = decode_address(owner, genesis.address_prefix)
            data["key_proof"] = key_proof_text(load_key(place.key), chain_id_of(genesis), staker)
        return data

    report(work, as_json, lambda data: str(data.get("key_proof", data["public_key"])))


def join(
    home: Home,
    bundle: Annotated[Path | None, typer.Option(help="The network's bundle.")] = None,
    publisher: Annotated[
        str, typer.Option(help="Fingerprint of the bundle's signer, as its publisher told you.")
    ] = "",
    genesis: Annotated[
        Path | None, typer.Option(help="The chain's genesis file, instead of a bundle.")
    ] = None,
    peer: Peers = None,
    seed: Seeds = None,
    state_sync: Annotated[
        list[str] | None,
        typer.Option(
            help="http://HOST:PORT of a node's RPC to begin from a snapshot instead of block 1; twice."
        ),
    ] = None,
    trust_height: Annotated[int, typer.Option(help="With --state-sync: height of a header you trust.")] = 0,
    trust_hash: Annotated[str, typer.Option(help="With --state-sync: that header's hash.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make the folder of a full node on a network that runs; it checks every block and validates none."""

    def work() -> dict[str, Any]:
        place = NodeHome(home)
        known = _open_bundle(bundle, publisher) if bundle is not None else None
        if genesis is not None:
            made = read_genesis(genesis)
        elif known is not None:
            made = known.genesis
        else:
            raise UsageRefused("which network? --bundle or --genesis names it")
        peers, seeds = tuple(peer or ()), tuple(seed or ()) or (known.seeds if known else ())
        if not peers and not seeds:
            raise UsageRefused(
                "no peer is known", hint="--peer or --seed ID@HOST:PORT; `dllm-node status` there prints it"
            )
        settings = NodeSettings().with_(COMETBFT, peers, seeds)
        if state_sync:
            root = _trust_root(known, trust_height, trust_hash)
            # CometBFT wants a second one to compare with; one that is asked twice is said so by the operator.
            settings = replace(settings, state_sync=StateSyncPlan(tuple(state_sync), *root))
        _make_keys(place)
        _settle(place, made, settings)
        return _described(place, made)

    report(
        work,
        as_json,
        lambda data: (
            f"chain {data['chain_id']} in {data['home']}; start it with `dllm-node start --home {data['home']}`"
        ),
    )


def _make_keys(place: NodeHome) -> bytes:
    """The validator's and the node's keys, made where there are none; returns the validator's public key."""
    make_private_folder(place.folder)
    signer = load_key(place.key) if place.key.exists() else create_key(place.key)
    prepare_folder(EngineFolder(place.cometbft))
    return signer.public_key


def _settle(place: NodeHome, genesis: Genesis, settings: NodeSettings) -> None:
    """Writes what the folder is for. Raises HomeRefused when it is for another chain already."""
    check_genesis(genesis)
    if place.genesis.exists() and read_genesis(place.genesis) != genesis:
        raise HomeRefused(
            f"{place.folder} holds chain {chain_id_of(read_genesis(place.genesis))}, asked was "
            f"{chain_id_of(genesis)}",
            hint="use another folder for another chain",
        )
    if settings.engine == SOLO and genesis.params.max_validators != 1:
        raise UsageRefused(
            f"the chain has seats for {genesis.params.max_validators} validators, the solo engine runs one",
            hint="--engine cometbft",
        )
    write_genesis(place, genesis)
    write_settings(place, settings)


def _described(place: NodeHome, genesis: Genesis) -> dict[str, Any]:
    return {
        "home": str(place.folder),
        "chain_id": chain_id_of(genesis),
        "public_key": load_key(place.key).public_key.hex(),
        "node_id": node_id(EngineFolder(place.cometbft)),
        "engine": read_settings(place).engine,
    }


def _open_bundle(path: Path, publisher: str) -> NetworkBundle:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageRefused(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > BUNDLE_BYTES_MAX:
        raise UsageRefused(f"{path} has {len(data)} bytes, a bundle at most {BUNDLE_BYTES_MAX}")
    try:
        signed = SignedBundle.decode(data)
    except MalformedBytes as error:
        raise UsageRefused(f"{path} is no bundle: {error.message}") from error
    found = fingerprint(signed.signer)
    if not signed.signature_fits:
        raise UsageRefused(f"{path} is not signed by {found}", hint="fetch it again from its publisher")
    if publisher != found:
        raise UsageRefused(
            f"{path} is signed by {found}, --publisher says {publisher or 'nothing'}",
            hint="ask the publisher for the fingerprint over another way than the file came, and name it",
        )
    return signed.bundle


def _trust_root(known: NetworkBundle | None, height: int, hash_hex: str) -> tuple[int, bytes]:
    if not height and known is not None:
        return known.trust_height, known.trust_hash
    try:
        found = bytes.fromhex(hash_hex)
    except ValueError:
        found = b""
    if height < 1 or len(found) != 32:
        raise UsageRefused(
            "--state-sync needs a header that you trust", hint="--trust-height and --trust-hash, or --bundle"
        )
    return height, found
