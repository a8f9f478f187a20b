"""`dllm model list|show|found|pack|verify|assemble|fetch|seed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dllm_chat.cli.command import command, group
from dllm_chat.cli.output import Report, fields, table

app = group(
    """Models: registered on the network, found on this machine, and cut into pieces.

    \b
      dllm model list
      dllm model show guide
      dllm model found
      dllm model pack FILE.gguf        pieces for machines that each hold a part of it
      dllm model verify FILE.package
      dllm model assemble FILE.package --layers 0:8 --out part.gguf
      dllm model fetch NAME --layers 0:8 --peer HOST:PORT --out NAME.package
      dllm model seed NAME.package --listen 0.0.0.0:6881
    """
)

PackageFolder = Annotated[Path, typer.Argument(help="A package's folder.")]
Expected = Annotated[
    str | None, typer.Option("--manifest-hash", help="What its manifest's hash must be, in hexadecimal.")
]

UploadLimit = Annotated[
    str | None, typer.Option("--upload-limit", help="Bytes a second to peers: 2M, 500k; else no limit.")
]
FindPeers = Annotated[
    bool,
    typer.Option(
        "--find-peers", help="Ask the public DHT, and peers for peers; tells strangers what is fetched."
    ),
]


@command(app, "list")
async def list_models() -> Report:
    """Registered models, proved; the one asked by default is marked."""
    from dllm_chat.cli.models import model_data
    from dllm_chat.cli.service import watching
    from dllm_chat.dispatch.market import NoProvider

    async with watching() as service:
        height = await service.chain.reads.provable_height()
        found = [await model_data(service.chain, name, height) for name in await service.models()]
        try:
            default = await service.default_model()
        except NoProvider:
            default = ""
    rows = [
        (
            ("* " if one["name"] == default else "  ") + one["name"],
            one["status"],
            one["architecture"],
            str(one["layers"]),
            str(one["context_rows"]),
            f"{one['size_bytes'] / 1e6:.1f} MB",
            str(one["providers"]),
        )
        for one in found
    ]
    heads = ("  MODEL", "STATUS", "KIND", "LAYERS", "CONTEXT", "SIZE", "PROVIDERS")
    data = {"models": found, "default": default, "height": height}
    return Report(data, table(heads, rows) if rows else "no models yet: dllm worker on --model FILE")


@command(app, "show")
async def show(
    name: Annotated[str, typer.Argument(help="A registered model, or a package's folder.")],
) -> Report:
    """One model's manifest, to the byte; that of a package without asking anybody."""
    from dllm_chat.cli.models import model_data
    from dllm_chat.cli.service import watching
    from dllm_chat.packages import names_a_package

    if names_a_package(name):
        return await _packager("show", name)

    async with watching() as service:
        data: dict[str, Any] = await model_data(
            service.chain, name, await service.chain.reads.provable_height()
        )
    return Report(data, fields({key: value for key, value in data.items() if key != "pieces"}))


@command(app, "found")
def found_here() -> Report:
    """GGUF files that other programs keep on this machine: Ollama, LM Studio, llama.cpp, Hugging Face, GPT4All.

    \b
      dllm worker on --model FILE      registers one and serves it
    """
    from dllm_chat.models_found import find_models

    here = find_models()
    models = [
        {"name": one.name, "path": str(one.path), "size_bytes": one.size_bytes, "source": one.source}
        for one in here
    ]
    rows = [(one.name, f"{one.size_bytes / 1e9:.2f} GB", one.source, str(one.path)) for one in here]
    return Report(
        {"models": models}, table(("MODEL", "SIZE", "FROM", "FILE"), rows) if rows else "none was found"
    )


@command(app, "pack")
async def pack(
    model: Annotated[Path, typer.Argument(help="A GGUF file, or any part of a split one.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The package's folder; else beside the file.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name in the registry; else the file's.")] = None,
    chat_template: Annotated[
        str | None, typer.Option("--chat-template", help="One of the closed set; else guessed.")
    ] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="Licence of the weights.")] = None,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Leave out the probe, for which every block is run once.")
    ] = False,
) -> Report:
    """Cut a model into pieces named by their content, for machines that each hold a part of it. Asks nobody.

    A probe is recorded with them: rows by which every part of the model proves itself before it serves.

    \b
      dllm model pack big-00001-of-00009.gguf --out big.package
    """
    return await _packager(
        "pack",
        str(model),
        *_option("--out", out),
        *_option("--name", name),
        *_option("--chat-template", chat_template),
        *_option("--licence", licence),
        *(["--no-probe"] if no_probe else []),
    )


@command(app, "verify")
async def verify(package: PackageFolder, manifest_hash: Expected = None) -> Report:
    """Compare every piece of a package with its manifest, to the byte. Asks nobody."""
    return await _packager("verify", str(package), *_option("--manifest-hash", manifest_hash))


@command(app, "assemble")
async def assemble(
    package: PackageFolder,
    layers: Annotated[
        str, typer.Option("--layers", help="FIRST:END, END not included; either may be left out.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The chunk's file; replaced if it is there.")],
    manifest_hash: Expected = None,
) -> Report:
    """Build a GGUF file of some layers, which llama.cpp loads, out of a package. Each piece is checked as it is copied.

    \b
      dllm model assemble big.package --layers 8:16 --out middle.gguf
    """
    options = [f"--layers={layers}", f"--out={out}", *_option("--manifest-hash", manifest_hash)]
    return await _packager("assemble", str(package), *options)


@command(app, "fetch")
async def fetch(
    model: Annotated[
        str,
        typer.Argument(metavar="MANIFEST|NAME", help="A package, a manifest's file, or a registered model."),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="The package's folder; a fetch that was stopped goes on in it.")
    ],
    layers: Annotated[
        str, typer.Option("--layers", help="FIRST:END, END not included; either may be left out.")
    ] = ":",
    peer: Annotated[list[str] | None, typer.Option("--peer", help="host:port of somebody who seeds.")] = None,
    web_seed: Annotated[
        list[str] | None, typer.Option("--web-seed", help="Address of a package's folder behind HTTP.")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", help="host:port where peers may come to meanwhile; else nowhere."),
    ] = None,
    upload_limit: UploadLimit = None,
    download_limit: Annotated[
        str | None, typer.Option("--download-limit", help="Bytes a second: 2M, 500k; else no limit.")
    ] = None,
    idle: Annotated[
        int | None, typer.Option("--idle", help="Seconds without anything until it fails; else 120.")
    ] = None,
    find_peers: FindPeers = False,
    manifest_hash: Expected = None,
) -> Report:
    """Fetch the pieces of some layers from peers and web seeds; each is compared with the manifest to the byte.

    \b
      dllm model fetch big --layers 8:16 --peer 192.0.2.7:6881 --out big.package
      dllm model fetch big.manifest --web-seed https://host/big.package --out big.package

    A registered model's manifest comes with a proof from the network.
    """
    from dllm_chat.cli.package_sources import manifest_file

    options = [
        *(f"--out={out}", f"--layers={layers}"),
        *(f"--peer={one}" for one in peer or ()),
        *(f"--web-seed={one}" for one in web_seed or ()),
        *_option("--listen", listen),
        *_option("--upload-limit", upload_limit),
        *_option("--download-limit", download_limit),
        *_option("--idle", idle),
        *(["--find-peers"] if find_peers else []),
    ]
    async with manifest_file(model, manifest_hash) as (path, expected):
        return await _packager("fetch", str(path), *options, *_option("--manifest-hash", expected))


@command(app, "seed")
async def seed(
    packages: Annotated[list[Path], typer.Argument(help="Packages' folders.")],
    listen: Annotated[str, typer.Option("--listen", help="host:port to listen on; port 0 takes a free one.")],
    upload_limit: UploadLimit = None,
    find_peers: FindPeers = False,
) -> Report:
    """Serve the pieces of packages to peers until told to stop; pieces that come meanwhile are served too.

    \b
      dllm model seed big.package --listen 0.0.0.0:6881 --upload-limit 2M
    """
    from dllm_chat.cli.long_running import announce, ended, told_to_stop
    from dllm_chat.cli.output import progress
    from dllm_chat.packages import serve_packages

    words = ["seed", f"--listen={listen}", *_option("--upload-limit", upload_limit)]
    words += ["--find-peers"] if find_peers else []
    async with told_to_stop() as told:
        await serve_packages(
            [*words, "--", *map(str, packages)],
            lambda data: announce(Report(data, fields(data))),
            progress,
            told,
        )
    raise ended()


def _option(name: str, value: object) -> list[str]:
    return [] if value is None else [f"{name}={value}"]


async def _packager(verb: str, argument: str, *options: str) -> Report:
    """The worker's program does it, in a process of its own."""
    from dllm_chat.cli.output import progress
    from dllm_chat.packages import run_packager

    data = await run_packager([verb, *options, "--json", "--", argument], progress)
    return Report(data, fields({key: value for key, value in data.items() if key != "pieces"}))
