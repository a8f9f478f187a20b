"""A model file against what the registry promises: hashed as a stream, never parsed here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dllm_protocol.chat_templates import template_named
from dllm_protocol.errors import NotFound
from dllm_protocol.model_manifest import (
    BLOCK_BYTES,
    MANIFEST_VERSION,
    PIECE_FILE,
    Manifest,
    Piece,
    piece_root,
    weights_of,
)
from dllm_protocol.model_package.layout import piece_name
from dllm_protocol.pricing import RowPrices
from dllm_protocol.vocabulary import Vocabulary, vocabulary_hash
from local_worker.engine.messages import EngineInfo
from local_worker.errors import ModelMismatch

_READ_BYTES = 64 * BLOCK_BYTES
MAX_NAME = 48
DEFAULT_RESERVE = RowPrices(prompt_udllm=400, kept_udllm=4000, drafted_udllm=4000, replayed_udllm=400)
"""Reserve prices of a model that a worker registers itself, in udllm per 1,000 rows."""


def file_piece(path: Path) -> Piece:
    """The whole file as one piece: its size and BitTorrent v2 root."""
    size = 0

    def blocks() -> Iterator[bytes]:
        nonlocal size
        with path.open("rb", buffering=0) as file:
            while data := file.read(_READ_BYTES):
                # A short read inside the file would shift every later block.
                while len(data) % BLOCK_BYTES and (more := file.read(BLOCK_BYTES - len(data) % BLOCK_BYTES)):
                    data += more
                size += len(data)
                for start in range(0, len(data), BLOCK_BYTES):
                    yield data[start : start + BLOCK_BYTES]

    root = piece_root(blocks())
    return Piece(PIECE_FILE, 0, size, root)


def make_manifest(
    piece: Piece,
    info: EngineInfo,
    vocabulary: Vocabulary,
    *,
    name: str,
    chat_template: str,
    licence: str = "unknown",
    reserve_prices: RowPrices = DEFAULT_RESERVE,
) -> Manifest:
    """The manifest of a model of one file, from what the engine said of it.

    Raises:
        UnknownTemplate: the template is not in the closed set.
        MalformedBytes: a name that the registry does not take.
    """
    manifest = Manifest(
        version=MANIFEST_VERSION,
        name=name,
        architecture=info.architecture,
        layers=info.layers,
        context_rows=info.context_train,
        vocabulary_hash=vocabulary_hash(vocabulary),
        chat_template=template_named(chat_template).name,
        licence=licence,
        reserve_prices=reserve_prices,
        pieces=(piece,),
    )
    return Manifest.decode(manifest.encode())


def check_model(manifest: Manifest, piece: Piece, info: EngineInfo, vocabulary: Vocabulary) -> None:
    """Refuse to serve a file under a name that promises another.

    Raises:
        ModelMismatch: naming what differs, both values.
    """
    (promised, *others) = manifest.pieces
    if others or promised.kind != PIECE_FILE:
        raise ModelMismatch(
            f"{manifest.name} is made of {len(manifest.pieces)} pieces, the file is one piece",
            hint="serve its package with --package, or cut the file into the same pieces: --layers 0:END",
        )
    for what, got, wanted in (
        ("size", piece.size_bytes, promised.size_bytes),
        ("root", piece.root.hex(), promised.root.hex()),
        ("architecture", info.architecture, manifest.architecture),
        ("layers", info.layers, manifest.layers),
        ("vocabulary", vocabulary_hash(vocabulary).hex(), manifest.vocabulary_hash.hex()),
    ):
        if got != wanted:
            raise ModelMismatch(
                f"the file's {what} is {got}, {manifest.name} promises {wanted}",
                hint="fetch the model again, or serve this file under another name",
            )


def check_package(promised: Manifest, own: Manifest) -> None:
    """Refuse to serve a package under a name that promises another model. Terms (licence, prices) are the registry's,
    and so is the probe: two machines that cut one file record two.

    Raises:
        ModelMismatch: naming what differs, both values.
    """
    mine, theirs = weights_of(own.pieces), weights_of(promised.pieces)
    for what, got, wanted in (
        ("architecture", own.architecture, promised.architecture),
        ("layers", own.layers, promised.layers),
        ("vocabulary", own.vocabulary_hash.hex(), promised.vocabulary_hash.hex()),
        ("number of pieces", len(mine), len(theirs)),
        *(
            (piece_name(one.kind, one.index), one.root.hex(), other.root.hex())
            for one, other in zip(mine, theirs, strict=False)
        ),
    ):
        if got != wanted:
            raise ModelMismatch(
                f"the package's {what} is {got}, {promised.name} promises {wanted}",
                hint="fetch the package again, or serve this one under another name",
            )
    if mine != theirs:
        raise ModelMismatch(f"the package's pieces are not those of {promised.name}: kinds or sizes differ")


def name_from_file(path: Path) -> str:
    """A name for the registry out of a file's name: lower case, the registry's letters only."""
    cleaned = re.sub(r"[^a-z0-9.]+", "-", path.stem.lower()).strip("-.")
    return cleaned[:MAX_NAME] or "model"


def without_part(path: Path) -> Path:
    """A split model's file by the name that all its parts share."""
    return path.with_name(re.sub(r"-\d{5}-of-\d{5}(?=\.gguf$)", "", path.name))


def packaged_model() -> Path:
    """The model that ships with this package.

    Raises:
        NotFound: this installation has none.
    """
    found = sorted((Path(__file__).parent / "models").glob("*.gguf"))
    if not found:
        raise NotFound("this installation ships no model", hint="name a GGUF file with --model")
    return found[0]
