"""Decodes a few tokens of the packaged model: exits 0 where this machine's llama.cpp runs on its processor."""

from __future__ import annotations

from pathlib import Path

from llama_cpp import Llama

MODEL = Path(__file__).resolve().parents[2] / "local_worker" / "models" / "guide.gguf"
PROMPT = "What is DLLM and what does an answer cost? " * 8

answer = Llama(str(MODEL), n_ctx=256, n_threads=2, n_threads_batch=2, verbose=False)(PROMPT, max_tokens=4)
if not isinstance(answer, dict) or answer["usage"]["completion_tokens"] < 1:
    raise SystemExit(f"llama.cpp answered {answer!r}")
