"""``dllm-worker model``: cuts a model into a package of pieces, checks packages, builds chunks. No keys, and no network
but for ``fetch`` and ``seed``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dllm_protocol.model_manifest import PIECE_HEADER, Manifest, manifest_hash, probe_of
from dllm_protocol.model_package.chunk import is_tied
from dllm_protocol.model_package.layout import KIND_NAMES, piece_name
from local_worker import swarm_commands
from local_worker.command_output import Json, note, reported, say
from local_worker.command_words import Expected, hash_from, interruptible
from local_worker.layer_range import parse_layers
from local_worker.model_files import DEFAULT_RESERVE, name_from_file, without_part
from local_worker.packages.assembling import assemble as assemble_chunk
from local_worker.packages.package import load_package, read_piece_head, verify_piece
from local_worker.packages.packing import ManifestTerms
from local_worker.packages.packing import pack as pack_model

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Package = Annotated[Path, typer.Argument(help="A package's folder.")]

app.command()(swarm_commands.fetch)
app.command()(swarm_commands.seed)


@app.command()
def pack(
    model: Annotated[Path, typer.Argument(help="A GGUF file, or any part of a split one.")],
    out: Annotated[Path | None, typer.Option(help="The package's folder; else beside the file.")] = None,
    name: Annotated[str | None, typer.Option(help="Name in the registry.")] = None,
    chat_template: Annotated[str | None, typer.Option(help="One of the closed set; else guessed.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "unknown",
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Leave out the probe, for which every block is run once.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Cut a model into pieces that are named by their content, and write the manifest that names them."""
    with reported(as_json), interruptible():
        called = name or name_from_file(without_part(model))
        package = out or model.with_name(f"{without_part(model).stem}.package")
        terms = ManifestTerms(called, DEFAULT_RESERVE, chat_template, licence)
        manifest = pack_model(model, package, terms, _say_progress("packing"), with_probe=not no_probe)
        say({"package": str(package), **_described(manifest), "tied": _is_tied(package, manifest)}, as_json)


@app.command()
def show(package: Package, manifest_hash: Expected = None, as_json: Json = False) -> None:
    """What a package's manifest says; its pieces are not looked at."""
    with reported(as_json):
        manifest = load_package(package, hash_from(manifest_hash))
        pieces = [
            {
                "kind": KIND_NAMES[one.kind],
                "index": one.index,
                "size_bytes": one.size_bytes,
                "root": one.root.hex(),
            }
            for one in manifest.pieces
        ]
        told = {"package": str(package), **_described(manifest)}
        say(told | ({"pieces": pieces} if as_json else {}), as_json)


@app.command()
def verify(package: Package, manifest_hash: Expected = None, as_json: Json = False) -> None:
    """Compare every piece of a package with its manifest, to the byte."""
    with reported(as_json), interruptible():
        manifest = load_package(package, hash_from(manifest_hash))
        progress = _say_progress("verifying")
        for number, piece in enumerate(manifest.pieces, start=1):
            progress(piece_name(piece.kind, piece.index), number, len(manifest.pieces))
            verify_piece(package, piece)
        say({"package": str(package), "verified": True, **_described(manifest)}, as_json)


@app.command()
def assemble(
    package: Package,
    layers: Annotated[str, typer.Option(help="FIRST:END, END not included; either may be left out.")],
    out: Annotated[Path, typer.Option(help="The chunk's file; replaced if it is there.")],
    manifest_hash: Expected = None,
    as_json: Json = False,
) -> None:
    """Build the file of a chunk, which llama.cpp loads, out of a package's pieces; each is checked as it is copied."""
    with reported(as_json), interruptible():
        manifest = load_package(package, hash_from(manifest_hash))
        first, end = parse_layers(layers, manifest.layers)
        size_bytes = assemble_chunk(package, manifest, first, end, out).size_bytes
        told = {"chunk": str(out), "first_layer": first, "end_layer": end, "size_bytes": size_bytes}
        say(told | {"name": manifest.name, "manifest_hash": _described(manifest)["manifest_hash"]}, as_json)


def _is_tied(package: Path, manifest: Manifest) -> bool:
    """Whether the last chunk needs the embedding, too."""
    (header,) = (piece for piece in manifest.pieces if piece.kind == PIECE_HEADER)
    return is_tied(read_piece_head(package, header)[0])


def _described(manifest: Manifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "manifest_hash": manifest_hash(manifest).hex(),
        "architecture": manifest.architecture,
        "layers": manifest.layers,
        "context_rows": manifest.context_rows,
        "chat_template": manifest.chat_template,
        "licence": manifest.licence,
        "vocabulary_hash": manifest.vocabulary_hash.hex(),
        "piece_count": len(manifest.pieces),
        "has_probe": probe_of(manifest) is not None,
        "size_bytes": sum(piece.size_bytes for piece in manifest.pieces),
    }


def _say_progress(doing: str) -> Any:
    return lambda name, number, count: note(f"{doing} {name} ({number}/{count})")


if __name__ == "__main__":
    app()
