"""Asks a GGUF through llama.cpp: greedy, ChatML, one question at a time. Needs llama-cpp-python."""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt

_ANSWER_LIMIT_TOKENS = 160
Turn = tuple[str, str]


def _drop_log(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """llama.cpp describes the file on stderr; the figures are what is wanted here."""


_NO_LOG = llama_cpp.llama_log_callback(_drop_log)


class Answerer:
    """A loaded model with one context; exact_cache keeps keys and values in F32, to compare logits."""

    def __init__(self, path: Path, threads: int = 2, exact_cache: bool = False) -> None:
        llama_cpp.llama_log_set(_NO_LOG, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(self._vocab)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = llama_cpp.llama_model_n_ctx_train(self._model)
        if exact_cache:
            params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.n_threads = params.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Ids of text as llama.cpp spells them, control tokens understood only when special."""
        raw = text.encode()
        buffer = (llama_cpp.llama_token * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), buffer, len(buffer), True, special)
        if count < 0:
            raise RuntimeError(f"llama.cpp needs {-count} tokens for {len(raw)} bytes")
        return list(buffer[:count])

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        count = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:count]

    def _decode(self, tokens: list[int]) -> None:
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        code = llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(array, len(tokens)))
        if code != 0:
            raise RuntimeError(f"llama_decode says {code} for {len(tokens)} tokens")

    def _last_logits(self) -> npt.NDArray[np.float32]:
        pointer = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self.vocab_size,))

    def _forget(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)

    def logits_of(self, tokens: list[int]) -> npt.NDArray[np.float32]:
        """Logits after each token [tokens, vocab], fed one by one."""
        self._forget()
        out = []
        for token in tokens:
            self._decode([token])
            out.append(self._last_logits().copy())
        return np.stack(out)

    def answer(self, question: str, history: tuple[Turn, ...] = (), system: str = "") -> str:
        """The greedy answer to a question, after the turns before it."""
        text = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
        for asked, answered in history:
            text += f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n{answered}<|im_end|>\n"
        text += f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        self._forget()
        pending = self.tokenize(text, special=True)
        out = bytearray()
        for _ in range(_ANSWER_LIMIT_TOKENS):
            self._decode(pending)
            token = int(self._last_logits().argmax())
            if llama_cpp.llama_vocab_is_eog(self._vocab, token):
                break
            out += self._piece(token)
            pending = [token]
        return out.decode("utf-8", "replace")
