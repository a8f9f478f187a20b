"""From bytes to a model that can be served: hashed, named, held against the registry."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from dllm_protocol.chat_templates import template_named
from dllm_protocol.model_manifest import Manifest, Piece, manifest_hash, weights_of
from dllm_protocol.vocabulary import Vocabulary
from local_worker.chain import Chain
from local_worker.engine.errors import ModelRefused
from local_worker.engine.interface import ServingEngine
from local_worker.engine.messages import EngineInfo
from local_worker.model_files import check_model, check_package, file_piece, make_manifest
from local_worker.vocabulary import canonical_vocabulary, guess_chat_template


class Candidate(Protocol):
    """What this machine has of a model, before the registry's word on it."""

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What a manifest lists where it is this model's, without the probe."""
        ...

    @property
    def tag(self) -> str:
        """A few letters that tell it from another model of the same name."""
        ...

    def check(self, manifest: Manifest) -> None:
        """Raises ModelMismatch where a manifest promises another model."""
        ...

    def manifest(self, name: str, chat_template: str | None) -> Manifest:
        """A manifest of our own making, for a registry that has none."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What is known of a file once an engine has loaded it."""

    piece: Piece
    info: EngineInfo
    vocabulary: Vocabulary
    vocabulary_bytes: bytes

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The file."""
        return (self.piece,)

    @property
    def tag(self) -> str:
        """See `Candidate`."""
        return self.piece.root.hex()[:8]

    def check(self, manifest: Manifest) -> None:
        """See `Candidate`."""
        check_model(manifest, self.piece, self.info, self.vocabulary)

    def manifest(self, name: str, chat_template: str | None, licence: str = "unknown") -> Manifest:
        """A manifest of our own making; the template is guessed from the vocabulary where none is named."""
        template = chat_template or guess_chat_template(piece.text for piece in self.vocabulary.pieces)
        return make_manifest(
            self.piece, self.info, self.vocabulary, name=name, chat_template=template, licence=licence
        )


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model in pieces, as its package's manifest describes it."""

    own: Manifest

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """All of them but the probe, whether they lie in the package or not."""
        return weights_of(self.own.pieces)

    @property
    def tag(self) -> str:
        """See `Candidate`."""
        return manifest_hash(self.own).hex()[:8]

    def check(self, manifest: Manifest) -> None:
        """See `Candidate`."""
        check_package(manifest, self.own)

    def manifest(self, name: str, chat_template: str | None) -> Manifest:
        """The package's own, under a name and a template that may be others."""
        template = chat_template or self.own.chat_template
        made = replace(self.own, name=name, chat_template=template_named(template).name)
        return Manifest.decode(made.encode())


async def describe(path: Path, engine: ServingEngine) -> LoadedModel:
    """Hash a whole model's file beside the engine's answer about its vocabulary.

    Raises:
        ModelRefused: the file is a part of a model, and nothing says of which.
    """
    info = engine.info
    if info.takes_hidden or info.gives_hidden:
        raise ModelRefused(
            f"{path.name} is layers {info.first_layer}:{info.end_layer} of a model of {info.model_layers}: "
            "a chunk by itself proves nothing of its model",
            hint="name the whole model's file with --model, or its package with --package, and the layers",
        )
    piece, words = await asyncio.gather(asyncio.to_thread(file_piece, path), engine.vocabulary())
    vocabulary = await asyncio.to_thread(canonical_vocabulary, words)
    return LoadedModel(piece, engine.info, vocabulary, vocabulary.encode())


async def registered_manifest(
    chain: Chain, found: Candidate, own_name: str, *, name: str | None, chat_template: str | None
) -> Manifest:
    """The manifest under which a model is served: the registry's where it knows the model, else one made here.

    Args:
        own_name: what it is called where the registry has no name for it.
        name: serve it under this name only; None finds the name by the pieces, or gives it one that is free.

    Raises:
        ModelMismatch: the registry promises another model under that name.
    """
    if name is not None:
        record = await chain.model(name)
        if record is None:
            return found.manifest(name, chat_template)
        found.check(record.manifest)
        return record.manifest
    for known in await chain.model_names():
        record = await chain.model(known)
        if record is not None and weights_of(record.manifest.pieces) == found.pieces:
            found.check(record.manifest)
            return record.manifest
    free = own_name
    if (taken := await chain.model(free)) is not None:
        if weights_of(taken.manifest.pieces) == found.pieces:  # another worker registered it just now
            found.check(taken.manifest)
            return taken.manifest
        # Another model has that name: an earlier version of this one, most likely.
        free = f"{free}-{found.tag}"
    return await registered_manifest(chain, found, free, name=free, chat_template=chat_template)
