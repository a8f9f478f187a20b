"""``dllm-worker``: make a home, serve a model from it, say how it goes. For people and for supervisors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from dllm_protocol.address import decode_address, encode_address
from dllm_protocol.bundle import LOCAL_PREFIX, SignedBundle
from dllm_protocol.errors import UsageRefused
from local_worker.command_output import Json, note, reported, say
from local_worker.engine_host import EngineOptions
from local_worker.errors import HomeRefused
from local_worker.files import is_running, locked_home
from local_worker.keys import WorkerKeys, create_keys, key_file, load_keys, rotate_keys
from local_worker.model_files import packaged_model
from local_worker.operator_money import money_hint, money_named
from local_worker.package_commands import app as packages
from local_worker.piece_exchange import exchange_of
from local_worker.remote_engine.options import RemoteServer, remote_server
from local_worker.runner import run_worker, write_manifest
from local_worker.service import ServiceOptions
from local_worker.settlement import ClaimPolicy
from local_worker.slice_flags import gpu_layers_of, host_and_port, relays_of, slices_of
from local_worker.slice_service import LEDGER, MAX_SLICES, slice_home
from local_worker.status import Status, read_status

MAX_BUNDLE_BYTES = 16 << 20
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(packages, name="model")

ModelFile = Annotated[Path | None, typer.Option(help="The GGUF file to serve; else the installation's own.")]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.", envvar="DLLM_LOG_LEVEL")]
Backend = Annotated[str, typer.Option(help="llama.cpp, or openai: a server that runs already, at --url.")]
Url = Annotated[str | None, typer.Option(help="That server's address, as http://127.0.0.1:8000/v1.")]
KeyFile = Annotated[Path | None, typer.Option("--api-key-file", help="A file (0600) with its key.")]
RemoteModel = Annotated[str | None, typer.Option("--remote-model", help="Its name for the model.")]
Home = Annotated[Path, typer.Option(help="The worker's folder: keys, vouchers, logs.")]
MaybeBundle = Annotated[
    Path | None, typer.Option(help="A network's bundle: also prints the operator's address there.")
]
Sequences = Annotated[
    int | None, typer.Option(help="Sessions whose rows stay in memory; else as many as fit.", min=1, max=256)
]
Context = Annotated[int | None, typer.Option(help="Rows a session may have; else as many as fit.", min=256)]
GpuLayers = Annotated[
    str, typer.Option(help="Layers on graphics cards: a number, auto (all that fit) or none.")
]
Listen = Annotated[
    list[str] | None,
    typer.Option(
        help="host:port to listen on; port 0 takes a free one. If not said: 127.0.0.1:0, with --relay nowhere."
    ),
]
Relay = Annotated[
    list[str] | None,
    typer.Option(help="wss://HOST of a relay to be reached through, without a port of its own; repeatable."),
]
PlainRelay = Annotated[
    bool, typer.Option("--plain-relay", help="Take ws:// relays outside of private networks, too.")
]
OwnerAddress = Annotated[str | None, typer.Option(help="Address of the owner who registered this operator.")]
MetricsListen = Annotated[
    str, typer.Option(help="host:port for Prometheus' metrics, loopback only; empty = none.")
]
Package = Annotated[
    Path | None, typer.Option(help="A model in pieces to serve, instead of a file: see 'model pack'.")
]
Peer = Annotated[
    list[str] | None,
    typer.Option(
        help="host:port of somebody who seeds the package's model: missing pieces are fetched; repeatable."
    ),
]
WebSeed = Annotated[
    list[str] | None,
    typer.Option(help="Address of a package's folder behind HTTP, for the same; repeatable."),
]
NearHolders = Annotated[
    bool,
    typer.Option(
        "--near-holders", help="Fetch pieces from holders on this machine and in private networks, too."
    ),
]
Seed = Annotated[str, typer.Option(help="host:port to serve the package's pieces at; empty = nowhere.")]
UploadLimit = Annotated[
    str, typer.Option("--upload-limit", help="Bytes a second to peers: 2M, 500k; 0 = no limit.")
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        help="FIRST:END, END not included: serve these layers only. Several times: each as a provider of its own. "
        "auto: those where the network gains most. A file is cut into pieces first, once."
    ),
]
MostLayers = Annotated[
    int | None, typer.Option(help="With --layers auto: no more than this many.", min=1, max=512)
]
Announce = Annotated[
    list[str] | None,
    typer.Option(help="Endpoints for the chain, if others; with several slices one for each."),
]
Prices = Annotated[
    list[str] | None,
    typer.Option(help="prompt,kept,drafted,replayed in udllm per 1,000 rows; for all slices, or for each."),
]


def run() -> None:
    """The console script."""
    app()


@app.command()
def init(
    home: Home,
    slices: Annotated[
        int, typer.Option(help="For a worker of several slices: keys for each.", min=1, max=MAX_SLICES)
    ] = 1,
    bundle: MaybeBundle = None,
    as_json: Json = False,
) -> None:
    """Make a home with fresh keys, or keep the keys that it has; prints the public halves."""
    with reported(as_json):
        network = _read_network(bundle) if bundle else None
        own = [_initialised(slice_home(home, number)) for number in range(1, slices + 1)]
        _say_keys(home, own, network, as_json)


@app.command()
def keys(home: Home, bundle: MaybeBundle = None, as_json: Json = False) -> None:
    """Print the public halves of a home's keys."""
    with reported(as_json):
        own = [load_keys(one) for one in _slice_homes(home)]
        _say_keys(home, own, _read_network(bundle) if bundle else None, as_json)


@app.command()
def rotate(home: Home, as_json: Json = False) -> None:
    """Replace the service and the sealing keys; the next start publishes them. Not while sessions are open."""
    with reported(as_json), locked_home(home):
        say(_public([rotate_keys(one) for one in _slice_homes(home)]), as_json)


@app.command()
def status(home: Home, as_json: Json = False) -> None:
    """What the worker of a home last said of itself, and whether it runs."""
    with reported(as_json):
        found = read_status(home)
        if found is None:
            raise HomeRefused(f"no worker ever ran in {home}", hint="start one with dllm-worker start")
        found["running"] = is_running(home)
        say(found, as_json)


@app.command()
def manifest(
    home: Home,
    model: Annotated[Path, typer.Option(help="A GGUF file.")],
    out: Annotated[Path, typer.Option(help="Where the manifest's canonical bytes go.")],
    name: Annotated[str | None, typer.Option(help="Name in the registry.")] = None,
    chat_template: Annotated[str | None, typer.Option(help="One of the closed set; else guessed.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "unknown",
    as_json: Json = False,
) -> None:
    """Describe a model file as the registry takes it: loads it once in an engine."""
    with reported(as_json):
        say(
            write_manifest(home, model, out, name=name, chat_template=chat_template, licence=licence), as_json
        )


@app.command()
def start(
    home: Home,
    bundle: Annotated[Path, typer.Option(help="The network's bundle.")],
    model: ModelFile = None,
    package: Package = None,
    layers: Layers = None,
    most_layers: MostLayers = None,
    peer: Peer = None,
    web_seed: WebSeed = None,
    near_holders: NearHolders = False,
    seed: Seed = "",
    upload_limit: UploadLimit = "0",
    rpc: Annotated[list[str] | None, typer.Option(help="Nodes to ask instead of the bundle's.")] = None,
    listen: Listen = None,
    announce: Announce = None,
    relay: Relay = None,
    plain_relay: PlainRelay = False,
    owner: OwnerAddress = None,
    name: Annotated[str | None, typer.Option(help="Serve it, or fetch it, under this name only.")] = None,
    chat_template: Annotated[str | None, typer.Option(help="For a model that is registered here.")] = None,
    register_model: Annotated[bool, typer.Option(help="Register the model if it is not (bond).")] = False,
    prices: Prices = None,
    capacity: Annotated[int, typer.Option(help="Sessions open at once.", min=1)] = 16,
    sequences: Sequences = None,
    context: Context = None,
    gpu_layers: GpuLayers = "auto",
    threads: Annotated[int | None, typer.Option(help="That compute; else chosen.", min=1)] = None,
    backend: Backend = "llama.cpp",
    url: Url = None,
    api_key_file: KeyFile = None,
    remote_model: RemoteModel = None,
    claim_at: Annotated[int, typer.Option(help="Claim when this many udllm are unclaimed.", min=1)] = 500_000,
    vanished_s: Annotated[int, typer.Option(help="Claim when the client is away so long.", min=1)] = 60,
    metrics_listen: MetricsListen = "",
    log_level: LogLevel = "info",
    log_format: Annotated[str, typer.Option(help="json or logfmt.", envvar="DLLM_LOG_FORMAT")] = "json",
    lifeline: Annotated[bool, typer.Option(help="Stop when stdin ends.")] = False,
    as_json: Json = False,
) -> None:
    """Serve a model until a signal (or the lifeline's end) says stop; a second signal stops at once."""
    with reported(as_json), locked_home(_existing(home)):
        file = _model_of(model, package)
        relays = relays_of(relay or (), plain_allowed=plain_relay)
        typed = (layers or (), listen or (), announce or (), prices or (), capacity)
        slices = slices_of(*typed, relays=len(relays), most_layers=most_layers)
        remote = remote_server(backend, url, api_key_file, remote_model, in_parts=bool(package or layers))
        exchange = exchange_of(peer or (), web_seed or (), seed, upload_limit, package, layers, near_holders)
        own_keys = [_keys_of(home, number) for number in range(1, len(slices) + 1)]
        network, prefix = _read_network(bundle)
        options = ServiceOptions(
            home=home,
            engine=_engine_of(home, file, context, sequences, threads, gpu_layers, remote),
            package=package,
            slices=slices,
            relays=relays,
            owner=decode_address(owner, prefix) if owner else None,
            model_name=name,
            chat_template=chat_template,
            may_register_model=register_model or prefix == LOCAL_PREFIX,
            claims=replace(ClaimPolicy(), threshold_udllm=claim_at, vanished_ms=1000 * vanished_s),
            exchange=exchange.on_local_chain() if prefix == LOCAL_PREFIX else exchange,
            metrics=host_and_port(metrics_listen) if metrics_listen else None,
        )
        ready, log = partial(_say_ready, as_json=as_json), (log_level, log_format)
        with money_named(network, own_keys, is_owner=owner is None, registers=options.may_register_model):
            run_worker(
                options, own_keys, network, sources=rpc or (), lifeline=lifeline, on_ready=ready, log=log
            )


def _model_of(model: Path | None, package: Path | None) -> Path:
    """What is served: the package, the file, or the installation's own."""
    if model is not None and package is not None:
        raise UsageRefused("--model and --package are two models", hint="leave one of them away")
    return package or model or packaged_model()


def _engine_of(
    home: Path,
    model: Path,
    context: int | None,
    sequences: int | None,
    threads: int | None,
    gpu_layers: str,
    remote: RemoteServer | None,
) -> EngineOptions:
    most = (context, sequences, threads, gpu_layers_of(gpu_layers))
    return EngineOptions(model, home / "engine.log", *most, remote=remote)


def _say_ready(now: Status, as_json: bool) -> None:
    told: dict[str, Any] = {
        "provider": now.provider,
        "owner": now.owner,
        "model": now.model,
        "layers": list(now.layers),
        "endpoints": list(now.endpoints),
        "backend": now.backend,
    }
    if now.backend_url:
        told["backend_url"] = now.backend_url
    if len(now.slices) > 1:
        told["slices"] = [
            {"provider": one.provider, "layers": list(one.layers), "endpoints": list(one.endpoints)}
            for one in now.slices
        ]
    if now.metrics_address:
        told["metrics_address"] = now.metrics_address
    say({"state": now.state, **told}, as_json)


def _say_keys(
    home: Path, own: Sequence[WorkerKeys], network: tuple[SignedBundle, str] | None, as_json: bool
) -> None:
    """The public halves; for people with what the operators need where the network is known, else how to ask."""
    told = _public(own, network[1] if network else "")
    if as_json:
        say(told, as_json)
        return
    for number, one in enumerate(told.get("slices", [told]), start=1):
        shown = {name: value for name, value in one.items() if not (network and name == "operator")}
        say(({"slice": number} if len(own) > 1 else {}) | shown, as_json)
    if network:
        note(money_hint(network[0], own, is_owner=True))
    else:
        note(f"the operator's address on a network: dllm-worker keys --home {home} --bundle BUNDLE")


def _public(own: Sequence[WorkerKeys], prefix: str = "") -> dict[str, Any]:
    """The first slice's keys, and all of them where there are several; operators as addresses, too, with a prefix."""
    told = [
        {
            "operator": one.operator_address.hex(),
            **({"operator_address": encode_address(prefix, one.operator_address)} if prefix else {}),
            "operator_key": one.operator.public_key.hex(),
            "service_key": one.service.public_key.hex(),
            "sealing_key": one.sealing.public_key.hex(),
        }
        for one in own
    ]
    return dict(told[0]) | ({"slices": told} if len(told) > 1 else {})


def _initialised(home: Path) -> WorkerKeys:
    if key_file(home).exists():
        return load_keys(home)
    if (home / LEDGER).exists():
        raise HomeRefused(
            f"{home} has a ledger and no keys: vouchers of a provider whose keys are elsewhere",
            hint=f"put {key_file(home).name} back, or move {LEDGER} away to begin as another provider",
        )
    return create_keys(home)


def _slice_homes(home: Path) -> list[Path]:
    """The worker's own home, and those of further slices that have keys."""
    homes = [home]
    while len(homes) < MAX_SLICES and key_file(slice_home(home, len(homes) + 1)).exists():
        homes.append(slice_home(home, len(homes) + 1))
    return homes


def _keys_of(home: Path, number: int) -> WorkerKeys:
    own = slice_home(home, number)
    if number > 1 and not key_file(own).exists():
        raise HomeRefused(
            f"slice {number} has no keys", hint=f"dllm-worker init --home {home} --slices {number}"
        )
    return load_keys(own)


def _existing(home: Path) -> Path:
    if not home.is_dir():
        raise HomeRefused(f"{home} is no folder", hint="run dllm-worker init first")
    return home


def _read_network(path: Path) -> tuple[SignedBundle, str]:
    """A network's bundle, and what its addresses begin with."""
    try:
        with path.open("rb") as file:
            network = SignedBundle.decode(file.read(MAX_BUNDLE_BYTES))
    except OSError as error:
        raise UsageRefused(f"{path} cannot be read: {error.strerror}") from error
    return network, network.bundle.genesis.address_prefix


if __name__ == "__main__":
    run()
