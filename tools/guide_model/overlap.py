"""The held-out questions: how they are read, frozen and kept apart from the corpus."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from tools.guide_model.config import HELDOUT_DIR

GRAM = 8
_IS = re.compile(r"\b(what|where|who|how|why|when|that|there|here)'?s\b")
QUESTIONS = HELDOUT_DIR / "questions.txt"
OFF_TOPIC = HELDOUT_DIR / "off_topic.txt"
DEV_QUESTIONS = HELDOUT_DIR / "dev_questions.txt"
DEV_OFF_TOPIC = HELDOUT_DIR / "dev_off_topic.txt"
HASHES = HELDOUT_DIR / "SHA256SUMS"


@dataclass(frozen=True)
class Probe:
    """A question and the key facts of its answer: every group must be met by one of its alternatives."""

    question: str
    facts: tuple[tuple[str, ...], ...]

    def met_by(self, answer: str) -> bool:
        """Whether the answer holds, in any casing, one alternative of each group."""
        low = answer.lower()
        return all(any(alternative.lower() in low for alternative in group) for group in self.facts)


def read_probes(path: Path) -> list[Probe]:
    """Lines ``question => fact|alternative; fact``."""
    probes = []
    for line in path.read_text(encoding="utf-8").splitlines():
        question, _, facts = line.partition(" => ")
        groups = tuple(tuple(a.strip() for a in group.split("|")) for group in facts.split(";"))
        probes.append(Probe(question, groups))
    return probes


def read_off_topic(path: Path) -> list[Probe]:
    """One question a line; the honest answer holds "I only know DLLM"."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Probe(line, (("I only know DLLM",),)) for line in lines]


def words_of(text: str) -> list[str]:
    """Lower-case words without punctuation, the unit of overlap; "what's" and "what is" are the same."""
    return re.findall(r"[a-z0-9_]+", _IS.sub(r"\1 is", text.lower()).replace("'", ""))


def grams_of(text: str) -> set[tuple[str, ...]]:
    """All runs of GRAM words; a shorter text is one gram of its own, marked by its length."""
    words = words_of(text)
    if len(words) < GRAM:
        return {tuple(words)}
    return {tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)}


class Heldout:
    """All frozen questions as grams, to keep the corpus away from them.

    A held-out question of fewer than eight words has no 8-gram, so the whole question must not occur.
    """

    def __init__(self, *paths: Path) -> None:
        self.grams: set[tuple[str, ...]] = set()
        for path in paths or (QUESTIONS, OFF_TOPIC, DEV_QUESTIONS, DEV_OFF_TOPIC):
            for probe in read_probes(path):
                self.grams |= grams_of(probe.question)

    def overlaps(self, text: str) -> bool:
        return not self.grams.isdisjoint(grams_of(text))


def frozen_hashes() -> dict[str, str]:
    """The recorded SHA-256 of each held-out file, by name."""
    rows = (line.split() for line in HASHES.read_text(encoding="ascii").splitlines())
    return {name: digest for digest, name in rows}


def actual_hashes() -> dict[str, str]:
    """The SHA-256 of each held-out file as it is now."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (QUESTIONS, OFF_TOPIC)}
