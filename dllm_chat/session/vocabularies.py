"""Vocabularies on disk, by their hash: fetched once a model."""

from __future__ import annotations

from pathlib import Path

from dllm_chat.paths import write_private
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.messages import MAX_VOCABULARY_BYTES
from dllm_protocol.vocabulary import Vocabulary, vocabulary_hash


class VocabularyCache:
    """A folder of canonical vocabularies. Files are checked when read; a damaged one is as good as none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[bytes, Vocabulary] = {}

    def load(self, wanted_hash: bytes) -> Vocabulary | None:
        """The vocabulary of that hash, or None."""
        if wanted_hash in self._loaded:
            return self._loaded[wanted_hash]
        path = self._path(wanted_hash)
        if not path.is_file() or path.stat().st_size > MAX_VOCABULARY_BYTES:
            return None
        try:
            vocabulary = Vocabulary.decode(path.read_bytes())
        except MalformedBytes:
            return None
        if vocabulary_hash(vocabulary) != wanted_hash:
            return None
        self._loaded[wanted_hash] = vocabulary
        return vocabulary

    def save(self, vocabulary: Vocabulary) -> None:
        """Keep a vocabulary."""
        found = vocabulary_hash(vocabulary)
        self._loaded[found] = vocabulary
        write_private(self._path(found), vocabulary.encode())

    def _path(self, wanted_hash: bytes) -> Path:
        return self._folder / f"{wanted_hash.hex()}.vocabulary"
