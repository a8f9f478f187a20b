"""llama.cpp itself as the peer of chunks: the whole model in a process of its own, nothing around `llama_decode`.

``python -m benchmarks.llama_peer MODEL …`` answers one JSON object a line on stdin with one on stdout; `LlamaPeer`
starts it and asks. Between two calls of `llama_decode` there are only the writes that the next one needs: the batch's
arrays are made once, and the likeliest token is numpy's ``argmax`` over llama.cpp's own buffer.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

BATCH_ROWS = 512
"""llama.cpp's own default for a computation."""


class Whole:
    """A whole model with ``sequences`` contexts."""

    def __init__(
        self, path: Path, *, threads: int, context_rows: int, sequences: int, batch_rows: int
    ) -> None:
        self._silence = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
        llama_cpp.llama_log_set(self._silence, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(
            os.fsencode(path), llama_cpp.llama_model_default_params()
        )
        assert model is not None
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = context_rows * sequences
        params.n_seq_max = sequences
        params.n_batch = params.n_ubatch = batch_rows
        params.n_threads = params.n_threads_batch = threads
        # What llama.cpp's own tools take for parallel decoding: a stream of KV for each sequence.
        params.kv_unified = False
        params.no_perf = True
        context = llama_cpp.llama_init_from_model(model, params)
        vocab = llama_cpp.llama_model_get_vocab(model)
        assert context is not None
        assert vocab is not None
        memory = llama_cpp.llama_get_memory(context)
        assert memory is not None
        self._model, self._context, self._memory = model, context, memory
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(vocab)
        self._batch_rows = batch_rows
        self._batch = llama_cpp.llama_batch_init(batch_rows, 0, 1)
        self._batch.n_tokens = 0
        self._next = self._held = 0

    def prefill(self, prompt: list[int]) -> tuple[float, int]:
        """Seconds from the first row of a prompt to the likeliest token behind its last, and that token."""
        llama_cpp.llama_memory_clear(self._memory, True)
        started = time.perf_counter()
        for at in range(0, len(prompt), self._batch_rows):
            part = prompt[at : at + self._batch_rows]
            self._fill([(0, at + row, token) for row, token in enumerate(part)], wants_all=False)
            self._batch.logits[len(part) - 1] = at + len(part) == len(prompt)
            self._decode()
        token = self._likeliest(len(part) - 1)
        return time.perf_counter() - started, token

    def answers(self, prompts: list[list[int]], tokens: int) -> tuple[float, list[list[int]]]:
        """Greedy answers to all prompts at once: seconds a step (one token each), and their tokens."""
        llama_cpp.llama_memory_clear(self._memory, True)
        said: list[list[int]] = []
        for sequence, prompt in enumerate(prompts):
            self._fill([(sequence, at, token) for at, token in enumerate(prompt)], wants_all=False)
            self._batch.logits[len(prompt) - 1] = True
            self._decode()
            said.append([self._likeliest(len(prompt) - 1)])
        self._fill(
            [(sequence, len(prompt), said[sequence][0]) for sequence, prompt in enumerate(prompts)],
            wants_all=True,
        )
        batch, streams = self._batch, range(len(prompts))
        started = time.perf_counter()
        for _ in range(tokens):
            self._decode()
            for row in streams:
                batch.token[row] = token = self._likeliest(row)
                batch.pos[row] += 1
                said[row].append(token)
        return (time.perf_counter() - started) / tokens, said

    def begin(self, prompt: list[int]) -> int:
        """A greedy answer begins; its first token."""
        _, self._next = self.prefill(prompt)
        self._held = len(prompt)
        return self._next

    def shapes_differ_by(self, prompt: list[int], tokens: int) -> float:
        """The most that a logit differs between an answer's rows decoded one by one, and all of them in one batch."""
        self.begin(prompt)
        ids, one_by_one = list(prompt), []
        for _ in range(tokens):
            ids.append(self._next)
            self.go_on(1)
            one_by_one.append(self._logits(0))
        llama_cpp.llama_memory_clear(self._memory, True)
        self._fill([(0, at, token) for at, token in enumerate(ids)], wants_all=True)
        self._decode()
        together = [self._logits(row) for row in range(len(prompt), len(ids))]
        return float(np.abs(np.array(one_by_one) - np.array(together)).max())

    def go_on(self, tokens: int) -> list[tuple[float, int]]:
        """So many tokens more of it, and the seconds that each took."""
        steps = []
        for _ in range(tokens):
            started = time.perf_counter()
            self._fill([(0, self._held, self._next)], wants_all=True)
            self._decode()
            self._next = self._likeliest(0)
            self._held += 1
            steps.append((time.perf_counter() - started, self._next))
        return steps

    def _fill(self, rows: list[tuple[int, int, int]], *, wants_all: bool) -> None:
        batch = self._batch
        batch.n_tokens = len(rows)
        for row, (sequence, position, token) in enumerate(rows):
            batch.token[row] = token
            batch.pos[row] = position
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = sequence
            batch.logits[row] = wants_all

    def _decode(self) -> None:
        code = llama_cpp.llama_decode(self._context, self._batch)
        if code != 0:
            raise RuntimeError(f"llama_decode gave {code}")

    def _likeliest(self, row: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array(logits, shape=(self._vocab_size,)).argmax())

    def _logits(self, row: int) -> npt.NDArray[np.float32]:
        logits = llama_cpp.llama_get_logits_ith(self._context, row)
        return np.array(np.ctypeslib.as_array(logits, shape=(self._vocab_size,)), dtype=np.float32)


class LlamaPeer:
    """The peer's process."""

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        context_rows: int,
        sequences: int,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        numbers = {
            "--threads": threads,
            "--context-rows": context_rows,
            "--sequences": sequences,
            "--batch-rows": batch_rows,
        }
        options = [text for name, number in numbers.items() for text in (name, str(number))]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.llama_peer", str(path), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
        )

    def prefill(self, prompt: list[int]) -> tuple[float, int]:
        """As `Whole.prefill`."""
        seconds, token = self._ask("prefill", prompt=prompt)
        return seconds, token

    def answers(self, prompts: list[list[int]], tokens: int) -> tuple[float, list[list[int]]]:
        """As `Whole.answers`."""
        seconds, said = self._ask("answers", prompts=prompts, tokens=tokens)
        return seconds, said

    def begin(self, prompt: list[int]) -> int:
        """As `Whole.begin`."""
        return int(self._ask("begin", prompt=prompt))

    def go_on(self, tokens: int) -> list[tuple[float, int]]:
        """As `Whole.go_on`."""
        return [(seconds, token) for seconds, token in self._ask("go_on", tokens=tokens)]

    def shapes_differ_by(self, prompt: list[int], tokens: int) -> float:
        """As `Whole.shapes_differ_by`."""
        return float(self._ask("shapes_differ_by", prompt=prompt, tokens=tokens))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, what: str, **arguments: Any) -> Any:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"what": what, **arguments}) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the peer ended: {process.wait()}")
        return json.loads(answer)


def main() -> None:
    """Answer questions until stdin ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.llama_peer", description=__doc__)
    parser.add_argument("model", type=Path)
    for name in ("--threads", "--context-rows", "--sequences", "--batch-rows"):
        parser.add_argument(name, type=int, required=True)
    chosen = parser.parse_args()
    whole = Whole(
        chosen.model,
        threads=chosen.threads,
        context_rows=chosen.context_rows,
        sequences=chosen.sequences,
        batch_rows=chosen.batch_rows,
    )
    for line in sys.stdin:
        question = json.loads(line)
        what = question.pop("what")
        print(json.dumps(getattr(whole, what)(**question)), flush=True)


if __name__ == "__main__":
    main()
