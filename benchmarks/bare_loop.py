"""The peer to beat: a greedy loop straight on llama.cpp's low-level API, in this process, nothing between."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import llama_cpp
import numpy as np


class BareLoop:
    """A model with one sequence; `greedy` starts it over."""

    def __init__(self, path: Path, *, threads: int, context_rows: int) -> None:
        self._silence = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
        llama_cpp.llama_log_set(self._silence, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(
            os.fsencode(path), llama_cpp.llama_model_default_params()
        )
        assert model is not None
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = context_rows
        params.n_batch = params.n_ubatch = 256
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        context = llama_cpp.llama_init_from_model(model, params)
        vocab = llama_cpp.llama_model_get_vocab(model)
        assert context is not None
        assert vocab is not None
        self._model, self._context = model, context
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(vocab)
        self._batch = llama_cpp.llama_batch_init(256, 0, 1)

    def close(self) -> None:
        """Free the model and its context."""
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def start(self, prompt: list[int]) -> int:
        """Empty the context, decode a prompt of at most 256 rows, return the likeliest next token."""
        memory = llama_cpp.llama_get_memory(self._context)
        assert memory is not None
        llama_cpp.llama_memory_clear(memory, True)
        return self._decode(prompt, 0)

    def greedy(self, first: int, position: int, count: int) -> list[int]:
        """``count`` tokens that follow ``first``, which stands at ``position``."""
        tokens = []
        token = first
        for at in range(position, position + count):
            token = self._decode([token], at)
            tokens.append(token)
        return tokens

    def _decode(self, ids: list[int], first_position: int) -> int:
        batch = self._batch
        batch.n_tokens = len(ids)
        for row, token in enumerate(ids):
            batch.token[row] = token
            batch.pos[row] = first_position + row
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = 0
            batch.logits[row] = row == len(ids) - 1
        code = llama_cpp.llama_decode(self._context, batch)
        assert code == 0
        logits = llama_cpp.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(logits, shape=(self._vocab_size,)).argmax())
