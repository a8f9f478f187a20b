"""The one file that speaks to llama.cpp: a model or a chunk of one, its sequences' KV, and batches of rows.

Runs only in the engine process, which holds no keys: a model file is hostile until proven otherwise, and parsing
it here means that the worst it can do is end this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import llama_cpp
import numpy as np

from dllm_protocol.model_package.architectures import ARCHITECTURES
from local_worker.engine.batch import BatchRows, most_rows
from local_worker.engine.errors import ModelRefused
from local_worker.engine.messages import EngineInfo, EngineVocabulary, Hidden, Ids, Logits
from local_worker.engine.role import OVERWRITTEN_ENTRIES, even_groups, role_of
from local_worker.engine.rows import BatchFailed, Rows, cut
from local_worker.engine.tap import Tap
from local_worker.engine.thread_choice import ThreadChoice

SERVED = frozenset({*ARCHITECTURES, "olmo2", "smollm3"})
"""Architectures that are served, cut or whole; everything else is refused by its name."""

_TOKENIZERS = {1: "spm", 2: "bpe", 3: "wpm", 4: "ugm", 5: "rwkv", 6: "plamo2"}
_ERROR_LEVEL = 4
_NO_KV_SLOT = 1
_MUTE = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
_INT32 = ctypes.POINTER(ctypes.c_int32)


class _Library:
    """llama.cpp while something is loaded: what it says then, and files opened.

    llama.cpp names what is wrong with a file only in its log, so the log is kept while loading. Afterwards it goes to
    stderr without Python: a callback into Python during decode would cost more than the decode.
    """

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self._log = llama_cpp.llama_log_callback(self._hear)
        llama_cpp.llama_log_set(self._log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()

    def _hear(self, level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
        with contextlib.suppress(OSError):  # a full log stops no model
            os.write(2, text)
        if level == _ERROR_LEVEL and len(self.complaints) < 50:
            self.complaints.append(text.decode(errors="replace").strip())

    def load(
        self, path: Path, *, vocab_only: bool, gpu_layers: int = 0, as_stored: bool = False
    ) -> llama_cpp.llama_model_p:
        """A file as llama.cpp takes it; the last ``gpu_layers`` of its layers on graphics cards.

        Raises:
            ModelRefused: it does not.
        """
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = vocab_only
        params.n_gpu_layers = gpu_layers
        params.use_extra_bufts = not as_stored
        # Weights of a hostile or damaged file are checked for invalid blocks before any of them is used.
        params.check_tensors = not vocab_only
        model: llama_cpp.llama_model_p | None = llama_cpp.llama_model_load_from_file(
            os.fsencode(path), params
        )
        if model is None:
            reason = self.complaints[0] if self.complaints else "llama.cpp gave no reason"
            raise ModelRefused(f"{path.name}: not loaded: {reason}", hint="try another GGUF file")
        return model

    def let_go(self) -> None:
        """Stop listening."""
        llama_cpp.llama_log_set(llama_cpp.llama_log_callback(0), ctypes.c_void_p(0))


def library_folder() -> Path:
    """Where ggml's own libraries lie."""
    return Path(llama_cpp.__file__).parent / "lib"


class LlamaVocabulary:
    """A model's tokenizer."""

    def __init__(self, vocab: llama_cpp.llama_vocab_p) -> None:
        self._vocab = vocab
        self.meta: Callable[[str], str] = lambda _: ""
        """What the file's header says under a key; empty where it says nothing."""
        self.size: int = llama_cpp.llama_vocab_n_tokens(vocab)

    @classmethod
    def of_file(cls, path: Path) -> LlamaVocabulary:
        """The tokenizer of a file that may have no tensors at all.

        Raises:
            ModelRefused: not a GGUF, or one without a tokenizer.
        """
        library = _Library()
        model = library.load(path, vocab_only=True)
        vocab = llama_cpp.llama_model_get_vocab(model)
        library.let_go()
        if vocab is None or llama_cpp.llama_vocab_type(vocab) not in _TOKENIZERS:
            raise ModelRefused(f"{path.name} has no vocabulary")
        words = cls(vocab)
        words.meta = lambda key: _meta(model, key)
        return words

    def tokenize(self, text: bytes, *, marked: bool = False) -> Ids:
        """Ids of a text, no begin token before it; control tokens in it are text unless they are ``marked`` as such."""
        room = len(text) + 2
        ids = np.empty(room, dtype=np.int32)
        buffer = ids.ctypes.data_as(_INT32)
        count = llama_cpp.llama_tokenize(self._vocab, text, len(text), buffer, room, False, marked)
        if count < 0:
            raise BatchFailed(f"{len(text)} bytes of text gave {-count} tokens")
        return ids[:count]

    def describe(self) -> EngineVocabulary:
        """Every token's bytes and attributes."""
        api, vocab = llama_cpp, self._vocab
        ids = range(self.size)
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


class LlamaModel:
    """A loaded model, or chunk of one, with ``sequences`` separate contexts of ``context_rows`` rows each.

    Args:
        threads: that compute a batch.
        slice_threads: that may compute one of more than a few rows, None: as many.

    Raises:
        ModelRefused: not a GGUF, damaged, an architecture outside `SERVED`, or too large for memory.
    """

    def __init__(
        self,
        path: Path,
        *,
        context_rows: int,
        sequences: int,
        threads: int,
        batch_rows: int,
        slice_threads: int | None = None,
        gpu_layers: int = 0,
        device: str = "",
        as_stored: bool = False,
    ) -> None:
        self._library = _Library()
        self.architecture = self._checked_architecture(path)
        self._model = self._library.load(path, vocab_only=False, gpu_layers=gpu_layers, as_stored=as_stored)
        self._gpu_layers, self._device = gpu_layers, device
        layers = llama_cpp.llama_model_n_layer(self._model)
        self.role = role_of(path.name, layers, lambda key: _meta(self._model, key))
        vocab = llama_cpp.llama_model_get_vocab(self._model)
        if vocab is None:
            raise ModelRefused(f"{path.name} has no vocabulary")
        self._vocab = vocab
        self._words = LlamaVocabulary(vocab)
        self.vocab_size = self._words.size
        self._logits_row = ctypes.c_float * self.vocab_size
        self.n_embd: int = llama_cpp.llama_model_n_embd(self._model)
        self.batch_rows = most_rows(self.role, batch_rows, sequences, self.n_embd, self.vocab_size)
        self.context_rows = context_rows
        self.sequences = sequences
        self.threads = self._threads_now = threads
        self._thread_choice = ThreadChoice(threads, slice_threads or threads)
        self._tap = self._make_tap()
        self._context = self._open_context()
        memory = llama_cpp.llama_get_memory(self._context)
        if memory is None:
            raise ModelRefused(f"{path.name} keeps no context between rows")
        self._memory = memory
        self._rows = BatchRows(self.batch_rows, n_embd=self.n_embd if self.role.takes_hidden else 0)
        self._batch = llama_cpp.llama_batch(**self._rows.pointers())
        self._library.let_go()

    def _checked_architecture(self, path: Path) -> str:
        """The architecture's name, from the header alone: a refused one never gets to build its tensors."""
        model = self._library.load(path, vocab_only=True)
        name = _meta(model, "general.architecture")
        recurrent = llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_has_encoder(model)
        llama_cpp.llama_model_free(model)
        if name not in SERVED or recurrent:
            known = ", ".join(sorted(SERVED))
            raise ModelRefused(f"architecture {name!r} is not served", hint=f"served are: {known}")
        return name

    def _make_tap(self) -> Tap | None:
        role = self.role
        entry = OVERWRITTEN_ENTRIES.get(self.architecture) if role.takes_hidden else None
        exit_node = f"l_out-{role.end_layer - role.first_layer - 1}".encode() if role.gives_hidden else None
        if entry is None and exit_node is None:
            return None
        return Tap(
            library_folder(), n_embd=self.n_embd, rows=self.batch_rows, entry=entry, exit_node=exit_node
        )

    def _open_context(self) -> llama_cpp.llama_context_p:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = self.context_rows * self.sequences
        params.n_seq_max = self.sequences
        params.n_batch = self.batch_rows
        params.n_ubatch = self.batch_rows
        params.n_threads = self.threads
        params.n_threads_batch = self.threads
        # One KV stream a sequence: what one session holds neither slows the attention of the others nor takes
        # their room.
        params.kv_unified = False
        # Windowed layers keep all rows, so that a sequence can be cut back anywhere.
        params.swa_full = True
        params.no_perf = True
        if self._tap is not None:
            self._callback = llama_cpp.ggml_backend_sched_eval_callback(self._tap.callback())
            params.cb_eval = self._callback
        context: llama_cpp.llama_context_p | None = llama_cpp.llama_init_from_model(self._model, params)
        if context is None:
            complaints = self._library.complaints
            reason = complaints[-1] if complaints else "llama.cpp gave no reason"
            raise ModelRefused(
                f"no room for {self.sequences} sequences of {self.context_rows} rows: {reason}",
                hint="serve fewer sequences or a shorter context",
            )
        return context

    def decode(self, parts: Sequence[Rows]) -> list[Logits | Hidden]:
        """Decode all parts in one batch of at most ``batch_rows`` rows; at most one part a sequence, in their order.

        Returns:
            For each part an array [outputs, vocab_size] of f32 that is valid until the next call (no copy is made),
            or hidden states of all its rows [rows, n_embd] where the chunk is not the last.

        Raises:
            BatchFailed: llama.cpp refused; the KV of these sequences is no longer to be relied on.
        """
        if self._tap is not None:
            return self._decode_tapped(self._tap, parts)
        self._run(parts)
        return self._logits(parts)

    def _decode_tapped(self, tap: Tap, parts: Sequence[Rows]) -> list[Logits | Hidden]:
        """One computation after the other, each of which llama.cpp makes in the order of its batch."""
        if len(parts) == 1:
            return [self._run_tapped(tap, parts)[0].copy()]
        width = self.n_embd if self.role.gives_hidden else self.vocab_size
        found: list[list[Logits]] = [[] for _ in parts]
        for group in even_groups(parts):
            outputs = self._run_tapped(tap, [cut(parts[index], first, rows) for index, first, rows in group])
            for (index, _, _), output in zip(group, outputs, strict=True):
                found[index].append(output.copy())  # the next computation writes over it
        return [np.concatenate(rows) if rows else np.empty((0, width), dtype=np.float32) for rows in found]

    def _run_tapped(self, tap: Tap, pieces: Sequence[Rows]) -> Sequence[Logits | Hidden]:
        """One computation: what each piece gave, valid until the next one."""
        at = 0
        for piece in pieces if tap.has_entry else ():
            tap.entering[at : at + len(piece.inputs)] = piece.inputs
            at += len(piece.inputs)
        tap.expect(sum(len(piece.inputs) for piece in pieces))
        self._run(pieces)
        tap.check()
        if not self.role.gives_hidden:
            return self._logits(pieces)
        ends = list(itertools.accumulate(len(piece.inputs) for piece in pieces))
        return [tap.leaving[end - len(piece.inputs) : end] for end, piece in zip(ends, pieces, strict=True)]

    def _run(self, parts: Sequence[Rows]) -> None:
        rows = self._batch.n_tokens = self._rows.fill(parts, wants_all=self.role.gives_hidden)
        threads = self._thread_choice.of(rows)
        if threads != self._threads_now:
            self._use(threads)
        began_s = time.perf_counter()
        code = llama_cpp.llama_decode(self._context, self._batch)
        self._thread_choice.took(threads, rows, time.perf_counter() - began_s)
        if code != 0:
            what = "found no room in the context" if code == _NO_KV_SLOT else f"failed with code {code}"
            raise BatchFailed(f"llama_decode of {rows} rows {what}")

    def _use(self, threads: int) -> None:
        """From now on; llama.cpp would say so in its log, twice for every prompt."""
        llama_cpp.llama_log_set(_MUTE, ctypes.c_void_p(0))
        llama_cpp.llama_set_n_threads(self._context, threads, threads)
        self._library.let_go()
        self._threads_now = threads

    def _logits(self, parts: Sequence[Rows]) -> list[Logits]:
        """Views on llama.cpp's output buffer, whose rows stand in batch order."""
        views = []
        row = 0
        for part in parts:
            row += len(part.inputs)
            if part.outputs == 0:
                views.append(np.empty((0, self.vocab_size), dtype=np.float32))
                continue
            # Rows of one part are neighbours in the buffer; the first one's address is enough.
            first = llama_cpp.llama_get_logits_ith(self._context, row - part.outputs)
            # What numpy makes of a pointer is a new type each time, which costs more than the view.
            room = (self._logits_row * part.outputs).from_address(ctypes.addressof(first.contents))
            views.append(np.frombuffer(memoryview(room), np.float32).reshape(part.outputs, self.vocab_size))
        return views

    def truncate(self, sequence: int, rows: int) -> bool:
        """Drop all rows of a sequence from position ``rows`` on; False where the model's memory cannot."""
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, sequence, rows, -1))

    def tokenize(self, text: bytes, *, marked: bool = False) -> Ids:
        """See `LlamaVocabulary.tokenize`.

        Raises:
            BatchFailed: a chunk without a vocabulary.
        """
        return self._speaking().tokenize(text, marked=marked)

    def vocabulary(self) -> EngineVocabulary:
        """Every token's bytes and attributes.

        Raises:
            BatchFailed: a chunk without a vocabulary.
        """
        return self._speaking().describe()

    def _speaking(self) -> LlamaVocabulary:
        if not self.role.has_vocabulary:
            raise BatchFailed(
                f"layers {self.role.first_layer}:{self.role.end_layer} have no vocabulary: the first chunk has it"
            )
        return self._words

    def close(self) -> None:
        """Give the memory back; nothing may be asked of this object any more."""
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def info(self) -> EngineInfo:
        """What the service may know of this model."""
        api = llama_cpp
        layers = api.llama_model_n_layer(self._model)
        heads = max(1, api.llama_model_n_head(self._model))
        row_bytes = 4 * layers * self.n_embd * api.llama_model_n_head_kv(self._model) // heads  # f16 K and V
        return EngineInfo(
            architecture=self.architecture,
            layers=layers,
            n_embd=self.n_embd,
            vocab_size=self.vocab_size,
            context_train=api.llama_model_n_ctx_train(self._model),
            context_rows=self.context_rows,
            sequences=self.sequences,
            threads=self.threads,
            parameters=api.llama_model_n_params(self._model),
            model_bytes=api.llama_model_size(self._model),
            kv_bytes=row_bytes * self.context_rows * self.sequences,
            bos=api.llama_vocab_bos(self._vocab),
            eos=api.llama_vocab_eos(self._vocab),
            eot=api.llama_vocab_eot(self._vocab),
            adds_bos=bool(api.llama_vocab_get_add_bos(self._vocab)),
            first_layer=self.role.first_layer,
            end_layer=self.role.end_layer,
            model_layers=self.role.layers,
            device=self._device if self._gpu_layers else "",
            gpu_layers=min(self._gpu_layers, layers),
        )


def _meta(model: llama_cpp.llama_model_p, key: str) -> str:
    buffer = ctypes.create_string_buffer(256)
    size = llama_cpp.llama_model_meta_val_str(model, key.encode(), buffer, 256)
    return buffer.value.decode(errors="replace") if size >= 0 else ""
