"""`dllm model list|show|found|pack|verify|assemble`."""

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
    """
)

PackageFolder = Annotated[Path, typer.Argument(help="A package's folder.")]
Expected = Annotated[
    str | None, typer.Option("--manifest-hash", help="What its manifest's hash must be, in hexadecimal.")
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


def _option(name: str, value: object) -> list[str]:
    return [] if value is None else [f"{name}={value}"]


async def _packager(verb: str, argument: str, *options: str) -> Report:
    """The worker's program does it, in a process of its own."""
    from dllm_chat.cli.output import progress
    from dllm_chat.packages import run_packager

    data = await run_packager([verb, *options, "--json", "--", argument], progress)
    return Report(data, fields({key: value for key, value in data.items() if key != "pieces"}))
