"""Guesses where nothing repeats: what they cost when they are of no use. Sampled, as people ask."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.guessing import measure
from benchmarks.runner import Result
from dllm_chat.session.events import Sampling

NAME = "speculation-prose"


def run() -> Iterator[Result]:
    """First answers to questions, with guesses against without."""
    yield from measure(NAME, repeating=False, sampling=Sampling(temperature=0.7, seed=1))
