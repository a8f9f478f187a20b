"""From a file to a model that can be served: loaded, hashed, named, held against the registry."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from dllm_protocol.model_manifest import Manifest, Piece
from dllm_protocol.vocabulary import Vocabulary
from local_worker.chain import Chain
from local_worker.engine.errors import ModelRefused
from local_worker.engine.interface import ServingEngine
from local_worker.engine.messages import EngineInfo
from local_worker.model_files import check_model, file_piece, make_manifest, name_from_file
from local_worker.vocabulary import canonical_vocabulary, guess_chat_template


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What is known of a file once an engine has loaded it."""

    piece: Piece
    info: EngineInfo
    vocabulary: Vocabulary
    vocabulary_bytes: bytes

    @property
    def context_rows(self) -> int:
        """Longest sequence to serve: what fits the engine, or what the model was made for."""
        return min(self.info.context_rows, self.info.context_train or self.info.context_rows)

    def manifest(self, name: str, chat_template: str | None, licence: str = "unknown") -> Manifest:
        """A manifest of our own making; the template is guessed from the vocabulary where none is named."""
        template = chat_template or guess_chat_template(piece.text for piece in self.vocabulary.pieces)
        return make_manifest(
            self.piece, self.info, self.vocabulary, name=name, chat_template=template, licence=licence
        )


async def describe(path: Path, engine: ServingEngine) -> LoadedModel:
    """Hash the file beside the engine's answer about its vocabulary.

    Raises:
        ModelRefused: the file is a part of a model.
    """
    info = engine.info
    if info.takes_hidden or info.gives_hidden:
        raise ModelRefused(
            f"{path.name} is layers {info.first_layer}:{info.end_layer} of a model of {info.model_layers}, "
            "this worker serves whole models",
            hint="name the whole model's file with --model",
        )
    piece, words = await asyncio.gather(asyncio.to_thread(file_piece, path), engine.vocabulary())
    vocabulary = await asyncio.to_thread(canonical_vocabulary, words)
    return LoadedModel(piece, engine.info, vocabulary, vocabulary.encode())


async def registered_manifest(
    chain: Chain, loaded: LoadedModel, path: Path, *, name: str | None, chat_template: str | None
) -> Manifest:
    """The manifest under which the file is served: the registry's where it knows the file, else one made here.

    Args:
        name: serve it under this name only; None finds the name by the file's root, or gives it one that is free.

    Raises:
        ModelMismatch: the registry promises another file under that name.
    """
    if name is not None:
        record = await chain.model(name)
        if record is None:
            return loaded.manifest(name, chat_template)
        check_model(record.manifest, loaded.piece, loaded.info, loaded.vocabulary)
        return record.manifest
    for known in await chain.model_names():
        record = await chain.model(known)
        if record is not None and record.manifest.pieces == (loaded.piece,):
            check_model(record.manifest, loaded.piece, loaded.info, loaded.vocabulary)
            return record.manifest
    free = name_from_file(path)
    if await chain.model(free) is not None:
        # Another file has that name: an earlier version of this one, most likely.
        free = f"{free}-{loaded.piece.root.hex()[:8]}"
    return await registered_manifest(chain, loaded, path, name=free, chat_template=chat_template)
