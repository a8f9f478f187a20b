"""Guesses where the text repeats: each answer was given before in the conversation, and is asked for again."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.guessing import measure
from benchmarks.runner import Result
from dllm_chat.session.events import Sampling

NAME = "speculation-repeating"


def run() -> Iterator[Result]:
    """Greedy answers, with guesses against without."""
    yield from measure(NAME, repeating=True, sampling=Sampling(temperature=0.0))
