"""A model file's tokenizer without its weights, for an engine whose rows are computed elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dllm_protocol.model_package.chunk import END_KEY, FIRST_KEY, LAYERS_KEY
from local_worker.engine.errors import ModelRefused
from local_worker.engine.llama import LlamaVocabulary
from local_worker.engine.messages import EngineInfo, EngineVocabulary, Hidden, Ids, Logits
from local_worker.engine.role import Role
from local_worker.engine.rows import BatchFailed, Rows


class WordsOnly:
    """What stands where `LlamaModel` does: it tokenises, and has no sequences that could decode.

    Raises:
        ModelRefused: not a GGUF, one without a tokenizer, or a part of a model.
    """

    sequences = 0
    n_embd = 0
    batch_rows = 1
    threads = 1

    def __init__(self, path: Path, *, context_rows: int) -> None:
        self._words = LlamaVocabulary.of_file(path)
        self._described = self._words.describe()
        self._architecture = self._words.meta("general.architecture")
        self.vocab_size = self._words.size
        self.context_rows = context_rows
        layers = self._number("block_count")
        if layers < 1 or any(map(self._words.meta, (FIRST_KEY, END_KEY, LAYERS_KEY))):
            raise ModelRefused(
                f"{path.name} is a part of a model, or none: it has {layers} blocks",
                hint="name the whole model's file",
            )
        self.role = Role(0, layers, layers)

    def _number(self, key: str) -> int:
        said = self._words.meta(f"{self._architecture}.{key}")
        return int(said) if said.isdecimal() and len(said) < 9 else 0

    def tokenize(self, text: bytes, *, marked: bool = False) -> Ids:
        """See `LlamaVocabulary.tokenize`."""
        return self._words.tokenize(text, marked=marked)

    def vocabulary(self) -> EngineVocabulary:
        """Every token's bytes and attributes."""
        return self._described

    def decode(self, parts: Sequence[Rows]) -> list[Logits | Hidden]:
        """Nothing can be decoded.

        Raises:
            BatchFailed: always.
        """
        raise BatchFailed(f"{len(parts)} parts for an engine without weights")

    def truncate(self, sequence: int, rows: int) -> bool:
        """Nothing is held."""
        return False

    def info(self) -> EngineInfo:
        """What the file's header says."""
        layers = self.role.layers
        return EngineInfo(
            architecture=self._architecture,
            layers=layers,
            n_embd=self._number("embedding_length"),
            vocab_size=self.vocab_size,
            context_train=self._number("context_length"),
            context_rows=self.context_rows,
            sequences=0,
            threads=0,
            parameters=0,
            model_bytes=0,
            kv_bytes=0,
            bos=self._described.bos,
            eos=self._described.eos,
            eot=self._described.eot,
            adds_bos=self._described.adds_bos,
            first_layer=0,
            end_layer=layers,
            model_layers=layers,
        )
