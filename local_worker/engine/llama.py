"""The one file that speaks to llama.cpp: a model, its sequences' KV, and batches of rows.

Runs only in the engine process, which holds no keys: a model file is hostile until proven otherwise, and parsing
it here means that the worst it can do is end this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np

from local_worker.engine.errors import ModelRefused
from local_worker.engine.messages import EngineInfo, EngineVocabulary, Ids, Logits
from local_worker.engine.rows import BatchFailed, Rows

ARCHITECTURES = frozenset(
    {
        "llama",
        "qwen2",
        "qwen3",
        "qwen3moe",
        "gemma2",
        "gemma3",
        "phi3",
        "mistral3",
        "granite",
        "olmo2",
        "smollm3",
    }
)
"""Architectures that are served; everything else is refused by its name."""

_TOKENIZERS = {1: "spm", 2: "bpe", 3: "wpm", 4: "ugm", 5: "rwkv", 6: "plamo2"}
_ERROR_LEVEL = 4
_NO_KV_SLOT = 1


class LlamaModel:
    """A loaded model with ``sequences`` separate contexts of ``context_rows`` rows each.

    Raises:
        ModelRefused: not a GGUF, damaged, an architecture outside ``ARCHITECTURES``, or too large for memory.
    """

    def __init__(
        self, path: Path, *, context_rows: int, sequences: int, threads: int, batch_rows: int
    ) -> None:
        self._complaints: list[str] = []
        # llama.cpp names what is wrong with a file only in its log, so the log is kept while loading. Afterwards it
        # goes to stderr without Python: a callback into Python during decode would cost more than the decode.
        self._log = llama_cpp.llama_log_callback(self._hear)
        llama_cpp.llama_log_set(self._log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.architecture = self._checked_architecture(path)
        self._model = self._load(path, vocab_only=False)
        vocab = llama_cpp.llama_model_get_vocab(self._model)
        if vocab is None:
            raise ModelRefused(f"{path.name} has no vocabulary")
        self._vocab = vocab
        self._context = self._open_context(context_rows, sequences, threads, batch_rows)
        memory = llama_cpp.llama_get_memory(self._context)
        if memory is None:
            raise ModelRefused(f"{path.name} keeps no context between rows")
        self._memory = memory
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(vocab)
        self.batch_rows = batch_rows
        self.context_rows = context_rows
        self.sequences = sequences
        self._threads = threads
        self._prepare_batch(batch_rows)
        llama_cpp.llama_log_set(llama_cpp.llama_log_callback(0), ctypes.c_void_p(0))

    def _hear(self, level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
        with contextlib.suppress(OSError):  # a full log stops no model
            os.write(2, text)
        if level == _ERROR_LEVEL and len(self._complaints) < 50:
            self._complaints.append(text.decode(errors="replace").strip())

    def _refusal(self, path: Path, what: str) -> ModelRefused:
        reason = self._complaints[0] if self._complaints else "llama.cpp gave no reason"
        return ModelRefused(f"{path.name}: {what}: {reason}", hint="try another GGUF file")

    def _load(self, path: Path, *, vocab_only: bool) -> llama_cpp.llama_model_p:
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = vocab_only
        # Weights of a hostile or damaged file are checked for invalid blocks before any of them is used.
        params.check_tensors = not vocab_only
        model: llama_cpp.llama_model_p | None = llama_cpp.llama_model_load_from_file(
            os.fsencode(path), params
        )
        if model is None:
            raise self._refusal(path, "not loaded")
        return model

    def _checked_architecture(self, path: Path) -> str:
        """The architecture's name, from the header alone: a refused one never gets to build its tensors."""
        model = self._load(path, vocab_only=True)
        name = _meta(model, "general.architecture")
        layers = llama_cpp.llama_model_n_layer(model)
        recurrent = llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_has_encoder(model)
        llama_cpp.llama_model_free(model)
        known = ", ".join(sorted(ARCHITECTURES))
        if name not in ARCHITECTURES or recurrent:
            raise ModelRefused(f"architecture {name!r} is not served", hint=f"served are: {known}")
        # Both 27B models scale attention by their layer count, which a chunk of them does not have.
        if (name, layers) in {("gemma2", 46), ("gemma3", 62)}:
            raise ModelRefused(
                f"{name} with {layers} layers (27B) is not served", hint=f"served are: {known}"
            )
        return name

    def _open_context(
        self, context_rows: int, sequences: int, threads: int, batch_rows: int
    ) -> llama_cpp.llama_context_p:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = context_rows * sequences
        params.n_seq_max = sequences
        params.n_batch = batch_rows
        params.n_ubatch = batch_rows
        params.n_threads = threads
        params.n_threads_batch = threads
        # One KV stream a sequence: what one session holds neither slows the attention of the others nor takes
        # their room.
        params.kv_unified = False
        # Windowed layers keep all rows, so that a sequence can be cut back anywhere.
        params.swa_full = True
        params.no_perf = True
        context: llama_cpp.llama_context_p | None = llama_cpp.llama_init_from_model(self._model, params)
        if context is None:
            reason = self._complaints[-1] if self._complaints else "llama.cpp gave no reason"
            raise ModelRefused(
                f"no room for {sequences} sequences of {context_rows} rows: {reason}",
                hint="serve fewer sequences or a shorter context",
            )
        return context

    def _prepare_batch(self, rows: int) -> None:
        """A llama_batch over numpy arrays, filled by slices instead of by elements."""
        self._tokens = np.zeros(rows, dtype=np.int32)
        self._positions = np.zeros(rows, dtype=np.int32)
        self._counts = np.ones(rows, dtype=np.int32)
        self._sequence_ids = np.zeros(rows, dtype=np.int32)
        self._wanted = np.zeros(rows, dtype=np.int8)
        self._pointers = self._sequence_ids.ctypes.data + 4 * np.arange(rows, dtype=np.uintp)
        self._batch = llama_cpp.llama_batch(
            n_tokens=0,
            token=self._tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            embd=None,
            pos=self._positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            n_seq_id=self._counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def decode(self, parts: Sequence[Rows]) -> list[Logits]:
        """Decode all parts in one batch of at most ``batch_rows`` rows.

        Returns:
            For each part an array [outputs, vocab_size] of f32 that is valid until the next call: no copy is made.

        Raises:
            BatchFailed: llama.cpp refused; the KV of these sequences is no longer to be relied on.
        """
        at = 0
        for part in parts:
            end = at + len(part.ids)
            self._tokens[at:end] = part.ids
            self._positions[at:end] = np.arange(part.first_position, part.first_position + len(part.ids))
            self._sequence_ids[at:end] = part.sequence
            self._wanted[at : end - part.outputs] = 0
            self._wanted[end - part.outputs : end] = 1
            at = end
        self._batch.n_tokens = at
        code = llama_cpp.llama_decode(self._context, self._batch)
        if code != 0:
            what = "found no room in the context" if code == _NO_KV_SLOT else f"failed with code {code}"
            raise BatchFailed(f"llama_decode of {at} rows {what}")
        return self._logits(parts)

    def _logits(self, parts: Sequence[Rows]) -> list[Logits]:
        """Views on llama.cpp's output buffer, whose rows stand in batch order."""
        views = []
        row = 0
        for part in parts:
            row += len(part.ids)
            if part.outputs == 0:
                views.append(np.empty((0, self.vocab_size), dtype=np.float32))
                continue
            # Rows of one part are neighbours in the buffer; the first one's address is enough.
            first = llama_cpp.llama_get_logits_ith(self._context, row - part.outputs)
            shape = (part.outputs, self.vocab_size)
            views.append(np.ctypeslib.as_array(first, shape=shape))
        return views

    def truncate(self, sequence: int, rows: int) -> bool:
        """Drop all rows of a sequence from position ``rows`` on; False where the model's memory cannot."""
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, sequence, rows, -1))

    def tokenize(self, text: bytes) -> Ids:
        """Ids of a text; nothing in it is read as a control token, no begin token is put before it."""
        room = len(text) + 2
        ids = np.empty(room, dtype=np.int32)
        buffer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = llama_cpp.llama_tokenize(self._vocab, text, len(text), buffer, room, False, False)
        if count < 0:
            raise BatchFailed(f"{len(text)} bytes of text gave {-count} tokens")
        return ids[:count]

    def vocabulary(self) -> EngineVocabulary:
        """Every token's bytes and attributes."""
        api, vocab = llama_cpp, self._vocab
        ids = range(self.vocab_size)
        attributes = tuple(int(api.llama_vocab_get_attr(vocab, token)) for token in ids)
        pieces = tuple(self._piece(token) for token in ids)
        probe = b"".join(pieces[token] for token in self.tokenize(b"a"))
        return EngineVocabulary(
            pieces=pieces,
            attributes=attributes,
            end_ids=tuple(token for token in ids if api.llama_vocab_is_eog(vocab, token)),
            bos=api.llama_vocab_bos(vocab),
            eos=api.llama_vocab_eos(vocab),
            eot=api.llama_vocab_eot(vocab),
            adds_bos=bool(api.llama_vocab_get_add_bos(vocab)),
            adds_space=probe == b" a",
            tokenizer=_TOKENIZERS.get(api.llama_vocab_type(vocab), "none"),
        )

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        size = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, 64, 0, True)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, -size, 0, True)
        return buffer.raw[: max(size, 0)]

    def info(self) -> EngineInfo:
        """What the service may know of this model."""
        api = llama_cpp
        n_embd = api.llama_model_n_embd(self._model)
        layers = api.llama_model_n_layer(self._model)
        heads = max(1, api.llama_model_n_head(self._model))
        row_bytes = 4 * layers * n_embd * api.llama_model_n_head_kv(self._model) // heads  # f16 K and V
        return EngineInfo(
            architecture=self.architecture,
            layers=layers,
            n_embd=n_embd,
            vocab_size=self.vocab_size,
            context_train=api.llama_model_n_ctx_train(self._model),
            context_rows=self.context_rows,
            sequences=self.sequences,
            threads=self._threads,
            parameters=api.llama_model_n_params(self._model),
            model_bytes=api.llama_model_size(self._model),
            kv_bytes=row_bytes * self.context_rows * self.sequences,
            bos=api.llama_vocab_bos(self._vocab),
            eos=api.llama_vocab_eos(self._vocab),
            eot=api.llama_vocab_eot(self._vocab),
            adds_bos=bool(api.llama_vocab_get_add_bos(self._vocab)),
        )


def _meta(model: llama_cpp.llama_model_p, key: str) -> str:
    buffer = ctypes.create_string_buffer(256)
    size = llama_cpp.llama_model_meta_val_str(model, key.encode(), buffer, 256)
    return buffer.value.decode(errors="replace") if size >= 0 else ""
