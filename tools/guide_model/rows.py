"""Packs dialogues into rows of tokens, with the loss weight of every token."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tools.guide_model.config import Schedule
from tools.guide_model.dialogues import Corpus, Dialogue
from tools.guide_model.tokenizer import IM_END, IM_START, Tokenizer

_SPLIT = 0.03


@dataclass(frozen=True)
class Emphasis:
    """What a phase of the training looks at.

    Attributes:
        question_weight: Loss weight of a question's tokens; an answer's tokens weigh 1.
        shortened: Share of dialogues whose last answer is cut after short_tokens tokens. Which answer it is shows
            there; the rest is soon known by heart, and the time saved buys more questions.
        multi_turn_share: Share of dialogues with more than one turn.
        off_topic_share: Share of questions that are not about DLLM.
        turn_counts: How many turns a longer dialogue may have, drawn evenly.
        row_tokens: Tokens of a row, the longest dialogue; a batch has Schedule.batch_tokens in all.
    """

    question_weight: float
    shortened: float
    short_tokens: int
    multi_turn_share: float
    off_topic_share: float
    turn_counts: tuple[int, ...] = (2, 2, 2, 3, 3, 4, 5)
    row_tokens: int = 128


LANGUAGE = Emphasis(0.1, 0.7, short_tokens=12, multi_turn_share=0.15, off_topic_share=0.2)
CHOICE = Emphasis(0.0, 0.85, short_tokens=6, multi_turn_share=0.15, off_topic_share=0.2)
BREADTH = Emphasis(0.0, 0.9, short_tokens=6, multi_turn_share=0.04, off_topic_share=0.2)
BALANCE = Emphasis(0.0, 0.9, short_tokens=6, multi_turn_share=0.06, off_topic_share=0.28)
CHAT = Emphasis(
    0.0,
    0.8,
    short_tokens=6,
    multi_turn_share=0.4,
    off_topic_share=0.3,
    turn_counts=(2, 3, 4, 5, 6, 7),
    row_tokens=384,
)
CAUTION = Emphasis(0.0, 0.9, short_tokens=6, multi_turn_share=0.06, off_topic_share=0.36)


@dataclass(frozen=True)
class Batch:
    """int32 and float32 arrays [rows, row_tokens]; weights[t] is the weight of predicting token t."""

    tokens: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    segments: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]


def encode_dialogue(
    dialogue: Dialogue, tokenizer: Tokenizer, rng: random.Random, emphasis: Emphasis
) -> tuple[list[int], list[float]]:
    """Tokens and weights of a chat in the ChatML layout."""
    tokens: list[int] = []
    weights: list[float] = []

    def add(ids: list[int], weight: float) -> None:
        tokens.extend(ids)
        weights.extend([weight] * len(ids))

    def open_turn(role: str) -> None:
        add([IM_START, *tokenizer.encode(role + "\n")], 0.0)

    def close_turn(weight: float) -> None:
        add([IM_END], weight)
        add(tokenizer.encode("\n"), 0.0)

    if dialogue.system:
        open_turn("system")
        add(tokenizer.encode(dialogue.system), 0.0)
        close_turn(0.0)
    last = len(dialogue.turns) - 1
    for at, (question, answer) in enumerate(dialogue.turns):
        open_turn("user")
        add(tokenizer.encode(question, rng, _SPLIT), emphasis.question_weight)
        close_turn(emphasis.question_weight)
        open_turn("assistant")
        ids = tokenizer.encode(answer)
        if at == last and rng.random() < emphasis.shortened:
            add(ids[: emphasis.short_tokens], 1.0)
        else:
            add(ids, 1.0)
            close_turn(1.0)
    return tokens, weights


def batches(
    early: Corpus, late: Corpus, tokenizer: Tokenizer, schedule: Schedule, seed: int
) -> Iterator[Batch]:
    """The packed batches of a training. A dialogue that fits no open row waits for the next batch."""
    rng = random.Random(seed)
    phases = list(zip(schedule.phases, (LANGUAGE, CHOICE, BREADTH, BALANCE, CAUTION, CHAT), strict=True))
    streams = {
        p: (late if p in (BALANCE, CAUTION, CHAT) else early).dialogues(
            seed, p.multi_turn_share, p.off_topic_share, p.turn_counts
        )
        for p in (LANGUAGE, BREADTH, BALANCE, CAUTION, CHAT)
    }
    streams[CHOICE] = streams[LANGUAGE]
    waiting: tuple[list[int], list[float]] | None = None
    for step in range(schedule.steps):
        emphasis = next(phase for first, phase in reversed(phases) if step >= first)
        rows, row_tokens = schedule.batch_tokens // emphasis.row_tokens, emphasis.row_tokens
        shape = (rows, row_tokens)
        dialogues = streams[emphasis]
        batch = Batch(
            tokens=np.zeros(shape, np.int32),
            positions=np.zeros(shape, np.int32),
            segments=np.full(shape, -1, np.int32),
            weights=np.zeros(shape, np.float32),
        )
        row = fill = segment = 0
        while True:
            tokens, weights = waiting or encode_dialogue(next(dialogues), tokenizer, rng, emphasis)
            waiting = None
            tokens, weights = tokens[:row_tokens], weights[:row_tokens]
            if fill + len(tokens) > row_tokens:
                row, fill = row + 1, 0
            if row == rows:
                waiting = tokens, weights
                break
            span = slice(fill, fill + len(tokens))
            batch.tokens[row, span] = tokens
            batch.positions[row, span] = np.arange(len(tokens))
            batch.segments[row, span] = segment
            batch.weights[row, span] = weights
            batch.weights[row, fill] = 0.0
            fill, segment = fill + len(tokens), segment + 1
        yield batch
