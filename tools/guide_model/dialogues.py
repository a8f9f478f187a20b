"""Turns the corpus into training dialogues: a deterministic stream for a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from tools.guide_model import grammar
from tools.guide_model.grammar import Intent, Phrase
from tools.guide_model.noise import made_up_word, roughen
from tools.guide_model.overlap import Heldout

OFF_TOPIC = "off-topic"
_SYSTEM_SHARE = 0.2
_ENDINGS = ("?", "?", "?", "?", "?", "??", " ?", "!", ".", ".")


@dataclass(frozen=True)
class Dialogue:
    """One chat: an optional system line, then (question, answer) turns."""

    system: str
    turns: tuple[tuple[str, str], ...]


class Corpus:
    """The intents, their frames, and a sampler over both.

    Args:
        heldout: What no question may overlap.
        late: Include the lines that were added after studying the development questions.
    """

    def __init__(self, heldout: Heldout, late: bool) -> None:
        self.heldout = heldout
        self.words = grammar.load_words()
        self.frames = grammar.load_frames()
        self.intents = grammar.load_intents(late)
        self.makers: dict[str, grammar.Maker] = {"nonsense": made_up_word}
        self._line_weights = [[self._weight(kind, line) for kind, line in i.lines] for i in self.intents]

    def _weight(self, kind: str, line: Phrase) -> float:
        spread = math.log2(line.variants(self.words))
        base = {"q": 1.0, "n": 4.0, "v": 4.0, "k": 3.0}[kind]
        return base + (1.0 if kind in "qk" else 1.5) * spread

    def _weigh_intents(self, off_topic_share: float) -> list[float]:
        plain = [math.sqrt(sum(weights)) for weights in self._line_weights]
        total = sum(w for w, i in zip(plain, self.intents, strict=True) if i.name != OFF_TOPIC)
        share = off_topic_share / (1 - off_topic_share) * total
        return [share if i.name == OFF_TOPIC else w for w, i in zip(plain, self.intents, strict=True)]

    def _sample(self, phrase: Phrase, rng: random.Random) -> str:
        return phrase.sample(rng, self.words, self.makers)

    def question(self, intent: Intent, weights: list[float], rng: random.Random) -> str:
        """One way to ask for an intent, with frames and noise, never one that overlaps the held-out set."""
        for _ in range(100):
            kind, line = rng.choices(intent.lines, weights)[0]
            text = self._sample(line, rng)
            if kind == "k":
                text = self._strew(text, rng)
            elif kind in "nv":
                text = self._sample(rng.choice(self.frames[kind]), rng).replace("X", text)
            text = " ".join(text.split())
            text = roughen(self._dress(text, rng), rng)
            if text and not self.heldout.overlaps(text):
                return text
        raise grammar.CorpusError(f"intent {intent.name!r} has only questions that overlap the held-out set")

    def _strew(self, text: str, rng: random.Random) -> str:
        """Key words strewn among small words: what is left of a sentence when its form does not matter."""
        first, *others = text.split(grammar.GROUP_MARK)
        kept = [first, *(word for word in others if rng.random() < 0.75)]
        if rng.random() < 0.5:
            rng.shuffle(kept)
        out = [self._sample(self.frames["open"][0], rng)] if rng.random() < 0.75 else []
        for at, word in enumerate(kept):
            if at and rng.random() < 0.8:
                out.append(self._sample(self.frames["link"][0], rng))
            out.append(word)
        return " ".join(out)

    def _dress(self, text: str, rng: random.Random) -> str:
        """The question with what people say around it, and an ending."""
        dice = rng.random()
        if dice < 0.14:
            text = f"{self._sample(self.frames['before'][0], rng)} {text}"
        elif dice < 0.24:
            aside, mark = self._sample(rng.choice(self.frames["aside"]), rng), rng.choice(".,;:")
            text = f"{aside}{mark} {text}" if rng.random() < 0.7 else f"{text}{mark} {aside}"
        if rng.random() < 0.14:
            text = f"{text} {self._sample(self.frames['behind'][0], rng)}"
        return text + rng.choice(_ENDINGS) if rng.random() < 0.5 else text

    def _turn(self, intent_weights: list[float], rng: random.Random) -> tuple[str, str]:
        at = rng.choices(range(len(self.intents)), intent_weights)[0]
        intent = self.intents[at]
        return self.question(intent, self._line_weights[at], rng), intent.answer

    def dialogues(
        self, seed: int, multi_turn_share: float, off_topic_share: float, turn_counts: tuple[int, ...]
    ) -> Iterator[Dialogue]:
        """An endless stream of dialogues, the same for the same seed."""
        rng, weights = random.Random(seed), self._weigh_intents(off_topic_share)
        while True:
            count = rng.choice(turn_counts) if rng.random() < multi_turn_share else 1
            system = self._sample(self.frames["system"][0], rng) if rng.random() < _SYSTEM_SHARE else ""
            yield Dialogue(system, tuple(self._turn(weights, rng) for _ in range(count)))
