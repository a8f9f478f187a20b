"""Cuts a model's file into the pieces of a package, as a stream: what is held in memory does not grow with the model.

What is held: the heads of the model's files (bounded), one portion of a tensor, and one hash a level of a piece's tree.
The model's probe is recorded at the end, out of the pieces, with one block at a time in an engine process.
Everything is written into a folder beside the package, which gets the package's name once it is whole: whoever stops a
pack, by whatever means, leaves nothing under that name, and the next pack clears the rest away.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dllm_protocol.chat_templates import template_named
from dllm_protocol.gguf.head import padded
from dllm_protocol.model_manifest import (
    PIECE_BLOCK,
    PIECE_HEADER,
    Manifest,
    Piece,
    version_for,
)
from dllm_protocol.model_package.layout import Model, PiecePlan, examine, piece_name, plan_pieces
from dllm_protocol.model_package.probe import short_context_rows
from dllm_protocol.model_package.torrent import PieceHashes
from dllm_protocol.pricing import RowPrices
from dllm_protocol.vocabulary import vocabulary_hash
from local_worker.engine.errors import ModelRefused
from local_worker.engine.vocabulary_of import vocabulary_of
from local_worker.packages.disk import (
    Progress,
    check_room,
    create_file,
    named_failures,
    sync_folder,
    write_all,
)
from local_worker.packages.errors import OutputRefused
from local_worker.packages.package import MANIFEST_FILE, PIECES_FOLDER, piece_path
from local_worker.packages.probe_recording import ProbedModel, record_probe
from local_worker.packages.sources import ModelSource, open_model
from local_worker.packages.spans import store_spans
from local_worker.vocabulary import canonical_vocabulary, guess_chat_template

_LOG_FILE = "engine.log"


@dataclass(frozen=True, slots=True)
class ManifestTerms:
    """What a manifest says beside what the model's file says."""

    name: str
    reserve_prices: RowPrices
    chat_template: str | None = None
    """One of the closed set; None guesses by the vocabulary."""
    licence: str = "unknown"


def pack(
    path: Path, package: Path, terms: ManifestTerms, progress: Progress, *, with_probe: bool = True
) -> Manifest:
    """Make a package out of a model's file, or of a split model's files; returns its manifest.

    Args:
        with_probe: record the model's probe too, for which every block is run once.

    Raises:
        NotAModelFile, ModelFileTruncated, ModelFileDamaged: what is wrong with the file.
        ArchitectureRefused, ModelShapeRefused: why the model cannot be cut.
        ModelRefused, EngineGone: llama.cpp does not take its vocabulary, or does not run one of its blocks.
        ModelChanged, DiskFull, OutputRefused: what came in between.
    """
    with open_model(path) as source:
        model = examine(source.metadata, source.tensors)
        plans = plan_pieces(model, source.metadata, source.tensors)
        probed = _probed(model, source) if with_probe else None
        with _new_folder(package, _room(plans, probed)) as folder:
            pieces = []
            for number, plan in enumerate(plans, start=1):
                progress(piece_name(plan.kind, plan.index), number, len(plans))
                pieces.append(_write_piece(folder, plan, source))
            source.check_unchanged()
            manifest = _manifest(folder, tuple(pieces), model, terms)
            if probed is not None:
                manifest = _with_probe(folder, manifest, probed, progress)
            _write_file(folder / MANIFEST_FILE, manifest.encode())
    return manifest


def _probed(model: Model, source: ModelSource) -> ProbedModel:
    """What there is to know of the model for its probe."""
    name = model.architecture.name
    names = [tensor.name for tensor in source.tensors]
    short_rows = short_context_rows(name, source.metadata, names)
    return ProbedModel(name, model.layers, model.n_embd, model.vocab_size, short_rows)


def _room(plans: list[PiecePlan], probed: ProbedModel | None) -> int:
    """Bytes on the disk at most: the pieces, and while the probe is recorded one block's file beside them."""
    pieces = sum(plan.head.size_bytes for plan in plans)
    if probed is None:
        return pieces
    ends = sum(plan.head.size_bytes for plan in plans if plan.kind != PIECE_BLOCK)
    block = max(plan.head.size_bytes for plan in plans if plan.kind == PIECE_BLOCK)
    return pieces + ends + block + probed.plan().head.size_bytes


def _with_probe(folder: Path, manifest: Manifest, probed: ProbedModel, progress: Progress) -> Manifest:
    """The manifest with the model's probe behind its other pieces."""
    log = folder / _LOG_FILE
    pieces = (
        *manifest.pieces,
        asyncio.run(record_probe(folder, manifest, probed, progress=progress, log=log)),
    )
    log.unlink(missing_ok=True)
    return Manifest.decode(replace(manifest, version=version_for(pieces), pieces=pieces).encode())


def _write_piece(folder: Path, plan: PiecePlan, source: ModelSource) -> Piece:
    """One piece, hashed while it is written, then named by its root."""
    hashes = PieceHashes(plan.head.size_bytes)
    unnamed = folder / PIECES_FOLDER / ".new"
    descriptor = create_file(unnamed)
    try:

        def put(data: bytes) -> None:
            hashes.update(data)
            write_all(descriptor, data)

        put(plan.raw_head)
        for tensor in plan.head.tensors:
            for portion in source.data(tensor.name):
                put(portion)
            put(bytes(padded(tensor.size_bytes) - tensor.size_bytes))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    piece = Piece(plan.kind, plan.index, hashes.size_bytes, hashes.root())
    store_spans(folder, piece, hashes.spans())
    unnamed.replace(piece_path(folder, piece))
    return piece


def _manifest(folder: Path, pieces: tuple[Piece, ...], model: Model, terms: ManifestTerms) -> Manifest:
    """What the header piece says, read by llama.cpp in a process of its own."""
    (header,) = (piece for piece in pieces if piece.kind == PIECE_HEADER)
    log = folder / _LOG_FILE
    path = piece_path(folder, header)
    try:
        said = asyncio.run(vocabulary_of(path, log))
    except ModelRefused as error:
        reason = error.message.replace(path.name, "its header")
        raise ModelRefused(f"llama.cpp does not take the model's vocabulary: {reason}") from error
    log.unlink(missing_ok=True)
    template = terms.chat_template or guess_chat_template(said.pieces)
    manifest = Manifest(
        version=version_for(pieces),
        name=terms.name,
        architecture=model.architecture.name,
        layers=model.layers,
        context_rows=model.context_rows,
        vocabulary_hash=vocabulary_hash(canonical_vocabulary(said)),
        chat_template=template_named(template).name,
        licence=terms.licence,
        reserve_prices=terms.reserve_prices,
        pieces=pieces,
    )
    return Manifest.decode(manifest.encode())


@contextlib.contextmanager
def _new_folder(package: Path, size_bytes: int) -> Iterator[Path]:
    """A folder that gets the package's name once it is whole; what an earlier pack left there is cleared away."""
    if package.exists() or package.is_symlink():
        raise OutputRefused(f"{package} is there already", hint="name another place with --out, or remove it")
    folder = package.with_name(f".{package.name}.packing")
    with named_failures(package), _only_one(folder):
        try:
            check_room(folder, size_bytes)
            (folder / PIECES_FOLDER).mkdir(mode=0o700)
            yield folder
            sync_folder(folder / PIECES_FOLDER)
            sync_folder(folder)
            folder.rename(package)
            sync_folder(package.parent)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """An empty folder that no other process fills; the lock goes with the process, however it ends."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A pack that ended just now has given this folder the package's name.
            is_ours = os.path.samestat(os.fstat(descriptor), folder.stat())
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:
            raise OutputRefused(
                f"another pack is filling {folder}", hint="wait for it, or name another place with --out"
            )
        for left in folder.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
        yield
    finally:
        os.close(descriptor)


def _write_file(path: Path, data: bytes) -> None:
    descriptor = create_file(path)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
