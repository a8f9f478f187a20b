"""What a slice's engine loads, and what it proves to be: a whole file, or some layers of a package."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from dllm_protocol.errors import DllmError, MalformedBytes
from dllm_protocol.gguf.head import Head
from dllm_protocol.model_manifest import PIECE_HEADER, Manifest, probe_of
from dllm_protocol.model_package.chunk import check_layers
from dllm_protocol.model_package.errors import PieceRefused
from dllm_protocol.vocabulary import vocabulary_hash
from local_worker.chain import Chain, wait_for_chain
from local_worker.engine.errors import ModelRefused
from local_worker.engine.interface import ServingEngine
from local_worker.engine.messages import EngineInfo
from local_worker.errors import ModelMismatch, ModelNotRegistered
from local_worker.layer_range import parse_layers
from local_worker.model_files import DEFAULT_RESERVE, name_from_file, without_part
from local_worker.model_service import PackagedModel, describe, registered_manifest
from local_worker.packages.disk import Progress
from local_worker.packages.errors import PackageNotFound
from local_worker.packages.kept import CHUNK_FILE, kept_chunk, kept_package
from local_worker.packages.package import (
    MANIFEST_FILE,
    check_chunked,
    load_package,
    piece_path,
    read_piece_head,
    verify_piece,
)
from local_worker.packages.packing import ManifestTerms
from local_worker.packages.probe_piece import Probe, nearest_probe, require_short_side
from local_worker.piece_exchange import Exchange
from local_worker.swarm.errors import NobodySeeds
from local_worker.vocabulary import canonical_vocabulary

_log = logging.getLogger(__name__)

MODEL_FOLDER: Final = "model"
"""In a home: what can be made anew from the model, and is in no backup."""
CHAIN_WAIT_S = 30.0
WHO_HAS_IT: Final = (
    "name who has its pieces with --peer or --web-seed, and for an empty folder the model with --name"
)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Served:
    """What an engine has loaded, held against the registry."""

    manifest: Manifest
    first_layer: int
    end_layer: int
    vocabulary_bytes: bytes
    """Canonical; empty where the layers are neither the first nor the last, which have none."""
    context_rows: int
    """Longest sequence to serve: what fits the engine, or what the model was made for."""
    probe: Probe | None = None
    """By which the layers prove themselves; a model of one file has none."""


class SliceModel(Protocol):
    """Where a slice's model comes from."""

    @property
    def path(self) -> Path:
        """What the engine loads, once `prepare` has returned."""
        ...

    async def prepare(self, chain: Chain) -> None:
        """Have the file there, checked."""
        ...

    async def identify(self, chain: Chain, engine: ServingEngine) -> Served:
        """What the engine loaded, and under which registered manifest it is served."""
        ...


@dataclass(frozen=True, slots=True)
class WholeFile:
    """A model of one file, as it lies somewhere on this machine."""

    path: Path
    name: str | None = None
    chat_template: str | None = None

    async def prepare(self, chain: Chain) -> None:
        """Nothing: it is hashed while the engine loads it."""

    async def identify(self, chain: Chain, engine: ServingEngine) -> Served:
        """See `SliceModel`.

        Raises:
            ModelRefused: it is a chunk.
            ModelMismatch: the registry promises another file.
        """
        loaded = await describe(self.path, engine)
        manifest = await registered_manifest(
            chain, loaded, name_from_file(self.path), name=self.name, chat_template=self.chat_template
        )
        return Served(
            manifest, 0, manifest.layers, loaded.vocabulary_bytes, _context_rows(engine.info, manifest)
        )


class SharedPackage:
    """A package that several slices of one worker are built from; looked at once."""

    def __init__(
        self,
        folder: Path | None,
        model: Path | None,
        home: Path,
        name: str | None,
        chat_template: str | None,
        exchange: Exchange | None = None,
    ) -> None:
        """Prepare.

        Args:
            folder: the package; None where ``model`` is to be cut into one first.
            model: a GGUF file, or any part of a split one.
            home: the worker's, which keeps the package of a model that was cut.
            name: serve it under this name only.
            exchange: where pieces that are missing come from; None: from nowhere.
        """
        self._folder = folder
        self._model = model
        self._home = home
        self._name = name
        self._chat_template = chat_template
        self._exchange = exchange or Exchange()
        self._found: tuple[Path, Manifest, Manifest] | None = None
        self.busy = asyncio.Lock()
        """Held by whoever reads or writes much: the disk is one."""

    async def found(self, chain: Chain) -> tuple[Path, Manifest, Manifest]:
        """(folder, the package's own manifest, the registry's), packed where it must be.

        Where no package lies in the folder and there are sources, the manifest is the registry's of the model's name.

        Raises:
            PackageNotFound, MalformedBytes, VerificationFailed: it is no package.
            ModelNotRegistered: nothing is there, and the registry has no model of that name.
            ModelMismatch: the registry promises another model under its name.
            As `pack`.
        """
        if self._found is not None:
            return self._found
        async with self.busy:
            if self._found is None:
                folder = self._folder or await self._pack()
                own = await self._own_manifest(folder, chain)
                registered = await registered_manifest(
                    chain, PackagedModel(own), own.name, name=self._name, chat_template=self._chat_template
                )
                self._found = folder, own, registered
            return self._found

    @property
    def folder(self) -> Path:
        """Where it lies, once `found` has returned."""
        assert self._found is not None, "found() comes first"
        return self._found[0]

    async def _own_manifest(self, folder: Path, chain: Chain) -> Manifest:
        may_fetch = self._exchange.has_named_sources or (
            self._exchange.has_sources and self._name is not None
        )
        if not may_fetch or (folder / MANIFEST_FILE).exists():
            try:
                return await asyncio.to_thread(load_package, folder)
            except PackageNotFound as missing:
                self._say_who_has_it(missing)
                raise
        if self._name is None:
            raise PackageNotFound(
                f"{folder} is no package, and no model is named that could be fetched into it",
                hint="name a registered model with --name",
            )
        record = await chain.model(self._name)
        if record is None:
            raise ModelNotRegistered(
                f"the registry has no model {self._name!r}, and {folder} is no package",
                hint="name a registered model with --name",
            )
        check_chunked(record.manifest)
        return record.manifest

    async def chunk(self, chain: Chain, first: int, end: int, folder: Path) -> None:
        """Have the layers [first, end) assembled in a folder; pieces that are missing or damaged are fetched before.

        Raises:
            As `found`, `kept_chunk` and, where there are sources, `Exchange.fetch`.
        """
        package, own, registered = await self.found(chain)

        def build(progress: Progress) -> None:
            kept_chunk(folder, package, own, first, end, progress)
            if self._exchange.has_sources:
                # Read once more before the slice proves itself; here it can still be fetched.
                _verify_probe(package, own, registered)

        await self._with_pieces(chain, build, first, end)

    async def header(self, chain: Chain) -> Head:
        """The head of the package's header piece, which is fetched before where it must be.

        Raises:
            As `found`, `read_piece_head` and, where there are sources, `Exchange.fetch`.
        """
        package, own, _ = await self.found(chain)
        piece = next(one for one in own.pieces if one.kind == PIECE_HEADER)

        def read(_: Progress) -> Head:
            if self._exchange.has_sources:
                verify_piece(package, piece)
            return read_piece_head(package, piece)[0]

        return await self._with_pieces(chain, read, 0, own.layers, header_only=True)

    async def _with_pieces(
        self, chain: Chain, work: Callable[[Progress], T], first: int, end: int, *, header_only: bool = False
    ) -> T:
        """Work that reads pieces of the layers [first, end); where it cannot, they are fetched, and it begins anew."""
        assert self._found is not None, "found() comes first"
        package, own, _ = self._found
        has_sources = self._exchange.has_sources
        lacks: DllmError | None = None
        async with self.busy:
            try:
                if not has_sources or (package / MANIFEST_FILE).exists():
                    return await in_thread(work)
            except (PackageNotFound, PieceRefused, MalformedBytes) as lacking:
                if not has_sources:
                    self._say_who_has_it(lacking)
                    raise
                _log.warning("the package lacks something: %s", lacking.message)
                lacks = lacking
            try:
                await self._exchange.fetch(chain, own, first, end, package, header_only=header_only)
            except NobodySeeds as nobody:
                if lacks is None:
                    raise
                self._say_who_has_it(lacks)
                raise lacks from nobody
            return await in_thread(work)

    def _say_who_has_it(self, error: DllmError) -> None:
        """Add to a failure that a package, unlike a file that is cut here, can be fetched."""
        if self._folder is not None:
            error.hint = "; or ".join(words for words in (error.hint, WHO_HAS_IT) if words)

    async def _pack(self) -> Path:
        model = self._model
        if model is None:
            raise ModelRefused("no package and no model file was named", hint="--package or --model")
        called = self._name or name_from_file(without_part(model))
        terms = ManifestTerms(called, DEFAULT_RESERVE, self._chat_template)
        folder = self._home / MODEL_FOLDER
        return await in_thread(lambda progress: kept_package(folder, model, terms, progress))


class PackagedLayers:
    """Some layers of a package, assembled into a slice's home."""

    def __init__(self, package: SharedPackage, layers: str, home: Path) -> None:
        """``layers``: as written, ``FIRST:END``; ``home``: the slice's own."""
        self._package = package
        self._layers = layers
        self._folder = home / MODEL_FOLDER

    @property
    def path(self) -> Path:
        """See `SliceModel`."""
        return self._folder / CHUNK_FILE

    async def prepare(self, chain: Chain) -> None:
        """Hold the package against the registry, then check, fetch where it must be, and assemble the pieces.

        Raises:
            LayersRefused: the model has no such layers.
            As `SharedPackage.chunk`.
        """
        await wait_for_chain(chain, CHAIN_WAIT_S)
        _, own, _ = await self._package.found(chain)
        first, end = parse_layers(self._layers, own.layers)
        check_layers(own.layers, first, end)
        await self._package.chunk(chain, first, end, self._folder)

    async def identify(self, chain: Chain, engine: ServingEngine) -> Served:
        """See `SliceModel`.

        Raises:
            ModelMismatch: llama.cpp reads something else out of the chunk than the manifest says.
            PieceRefused, PackageNotFound: the package's probe is not what the manifest says.
            LayersRefused: these layers would compute something else than others of the model.
        """
        package, own, registered = await self._package.found(chain)
        first, end = parse_layers(self._layers, own.layers)
        info = engine.info
        for what, got, wanted in (
            ("architecture", info.architecture, own.architecture),
            ("layers", (info.first_layer, info.end_layer), (first, end)),
            ("model's layers", info.model_layers, own.layers),
        ):
            if got != wanted:
                raise ModelMismatch(f"the chunk's {what}: {got}, {own.name} promises {wanted}")
        vocabulary = b""
        if not (info.takes_hidden and info.gives_hidden):
            words = await engine.vocabulary()
            said = await asyncio.to_thread(canonical_vocabulary, words)
            if vocabulary_hash(said) != own.vocabulary_hash:
                raise ModelMismatch(
                    f"the chunk's vocabulary is {vocabulary_hash(said).hex()}, "
                    f"{own.name} promises {own.vocabulary_hash.hex()}"
                )
            vocabulary = said.encode()
        await asyncio.to_thread(
            lambda: require_short_side(package, own, first, end, context_rows=info.context_rows)
        )
        probe = await asyncio.to_thread(
            lambda: nearest_probe(package, own, registered, first, end, context_rows=info.context_rows)
        )
        return Served(registered, first, end, vocabulary, _context_rows(info, registered), probe)


def _verify_probe(package: Path, own: Manifest, registered: Manifest) -> None:
    """Compare the probe that `nearest_probe` takes with its manifest; raises as `verify_piece`."""
    piece = probe_of(registered)
    if piece is None or not piece_path(package, piece).is_file():
        piece = probe_of(own)
    if piece is not None:
        verify_piece(package, piece)


def _context_rows(info: EngineInfo, manifest: Manifest) -> int:
    return min(info.context_rows, info.context_train or manifest.context_rows or info.context_rows)


class _Left(DllmError):
    """Nobody waits for this work any more."""

    code = "E_LEFT"


async def in_thread(work: Callable[[Progress], T]) -> T:
    """Long work in a thread; when its caller is cancelled it ends before its next piece."""
    left = threading.Event()

    def progress(name: str, number: int, count: int) -> None:
        if left.is_set():
            raise _Left(f"the worker stops before {name}")
        _log.info("%s (%d/%d)", name, number, count)

    try:
        return await asyncio.to_thread(work, progress)
    finally:
        left.set()
