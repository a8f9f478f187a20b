"""The corpus files: intents with one answer and many ways to ask, written in a small bracket grammar.

``[a|b|]`` is one of the alternatives (possibly nothing), ``{name}`` any word of that name's list, and brackets nest.
A file holds ``@ intent``, ``= answer`` (or ``= @other``: that intent's answer) and then lines ``n:`` (a thing), ``v:``
(something to do), ``q:`` (a question) and ``k:`` (groups of key words, split by ``;``). ``+ intent`` adds lines.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tools.guide_model.config import CORPUS_DIR

GROUP_MARK = "\x1f"
Words = dict[str, "Phrase"]
Maker = Callable[[random.Random], str]


class CorpusError(Exception):
    """A corpus file breaks its own rules; the message names file and line."""


@dataclass(frozen=True)
class Phrase:
    """A parsed template: a sequence of literal text, alternatives and references to word lists."""

    parts: tuple[str | tuple[Phrase, ...] | Reference, ...]

    def sample(self, rng: random.Random, words: Words, makers: dict[str, Maker]) -> str:
        """One expansion, chosen by rng."""
        out: list[str] = []
        for part in self.parts:
            if isinstance(part, str):
                out.append(part)
            elif isinstance(part, Reference):
                maker = makers.get(part.name)
                out.append(maker(rng) if maker else words[part.name].sample(rng, words, makers))
            else:
                out.append(rng.choice(part).sample(rng, words, makers))
        return "".join(out)

    def variants(self, words: Words) -> int:
        """How many expansions there are; a made-up word counts as 50."""
        total = 1
        for part in self.parts:
            if isinstance(part, Reference):
                total *= words[part.name].variants(words) if part.name in words else 50
            elif not isinstance(part, str):
                total *= sum(choice.variants(words) for choice in part)
        return total


@dataclass(frozen=True)
class Reference:
    """The name of a word list, written {name}."""

    name: str


@dataclass
class Intent:
    """One thing that the guide knows: its answer, and lines of (kind, template)."""

    name: str
    answer: str
    lines: list[tuple[str, Phrase]] = field(default_factory=list)


def parse(text: str) -> Phrase:
    """Parse a template.

    Raises:
        CorpusError: a bracket is not closed or closed without being opened.
    """
    phrase, end = _parse_until(text, 0, "")
    if end != len(text):
        raise CorpusError(f"unexpected {text[end]!r} at {end} in {text!r}")
    return phrase


def _parse_until(text: str, at: int, stops: str) -> tuple[Phrase, int]:
    parts: list[str | tuple[Phrase, ...] | Reference] = []
    literal: list[str] = []
    while at < len(text) and text[at] not in stops:
        char = text[at]
        if char not in "[{":
            if char in "]|":
                raise CorpusError(f"{char!r} without '[' in {text!r}")
            literal.append(char)
            at += 1
            continue
        if literal:
            parts.append("".join(literal))
            literal = []
        if char == "{":
            close = text.index("}", at)
            parts.append(Reference(text[at + 1 : close]))
            at = close + 1
        else:
            choices: list[Phrase] = []
            while True:
                choice, at = _parse_until(text, at + 1, "|]")
                choices.append(choice)
                if at >= len(text):
                    raise CorpusError(f"'[' is not closed in {text!r}")
                if text[at] == "]":
                    break
            parts.append(tuple(choices))
            at += 1
    if literal:
        parts.append("".join(literal))
    return Phrase(tuple(parts)), at


def _lines(path: Path) -> list[str]:
    rows = (row.strip() for row in path.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row and not row.startswith("#")]


def load_words(folder: Path = CORPUS_DIR) -> Words:
    """The word lists of words*.txt: ``name = a|b|c``."""
    words: Words = {}
    for path in sorted(folder.glob("words*.txt")):
        for row in _lines(path):
            name, _, choices = row.partition(" = ")
            words[name] = parse(f"[{choices}]")
    return words


def load_frames(folder: Path = CORPUS_DIR) -> dict[str, list[Phrase]]:
    """The lines of frames.txt by kind: n, v, before, behind, system."""
    frames: dict[str, list[Phrase]] = {}
    for row in _lines(folder / "frames.txt"):
        kind, _, text = row.partition(": ")
        frames.setdefault(kind, []).append(parse(text))
    return frames


def load_intents(late: bool, folder: Path = CORPUS_DIR) -> list[Intent]:
    """All intents of the numbered corpus files, in file order; with what was added late, or without.

    Raises:
        CorpusError: a line of unknown kind, an intent without answer or twice the same name.
    """
    intents: dict[str, Intent] = {}
    paths = [*sorted(folder.glob("[0-9]*.txt")), *(sorted(folder.glob("late/*.txt")) if late else ())]
    for path in paths:
        current = Intent("", "")
        for row in _lines(path):
            kind, _, text = row.partition(" ")
            if kind == "@":
                if text in intents:
                    raise CorpusError(f"{path.name}: intent {text!r} is named twice")
                current = intents.setdefault(text, Intent(text, ""))
            elif kind == "+":
                current = intents[text]
            elif kind == "=":
                current.answer = text
            elif kind in ("n:", "v:", "q:", "k:"):
                current.lines.append((kind[0], _parse_line(kind[0], text)))
            else:
                raise CorpusError(f"{path.name}: unknown line {row!r}")
    for intent in intents.values():
        if intent.answer.startswith("@"):
            intent.answer = intents[intent.answer[1:]].answer
    empty = [i.name for i in intents.values() if not i.answer or i.answer.startswith("@") or not i.lines]
    if empty:
        raise CorpusError(f"intents without answer or questions: {empty}")
    return list(intents.values())


def _parse_line(kind: str, text: str) -> Phrase:
    if kind == "n":
        return parse(f"[{text}]")
    return parse(text.replace(" ; ", GROUP_MARK)) if kind == "k" else parse(text)
