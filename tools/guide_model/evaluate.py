"""Scores a guide GGUF on the frozen questions: ``python -m tools.guide_model.evaluate``.

Greedy decoding through llama.cpp; an answer is right when it holds every key fact. Runs in the project's own
environment (extra ``worker``).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.guide_model.answerer import Answerer
from tools.guide_model.config import BUILD_DIR, MODEL_FILE
from tools.guide_model.overlap import (
    DEV_OFF_TOPIC,
    DEV_QUESTIONS,
    OFF_TOPIC,
    QUESTIONS,
    Probe,
    read_off_topic,
    read_probes,
)


@dataclass(frozen=True)
class Score:
    """How many of the probes were answered right, and the wrong ones with their answers."""

    right: int
    asked: int
    wrong: tuple[tuple[str, str], ...]

    @property
    def share(self) -> float:
        return self.right / self.asked


def score(answerer: Answerer, probes: list[Probe]) -> Score:
    """Ask every probe, each in a fresh conversation."""
    wrong = []
    for probe in probes:
        answer = answerer.answer(probe.question)
        if not probe.met_by(answer):
            wrong.append((probe.question, answer))
    return Score(len(probes) - len(wrong), len(probes), tuple(wrong))


def export_error(reference: Path, f32_file: Path) -> tuple[float, float]:
    """Largest difference between the training model's logits and llama.cpp's on the F32 file, and their spread."""
    stored = np.load(reference)
    logits = Answerer(f32_file, exact_cache=True).logits_of([int(token) for token in stored["tokens"]])
    return float(np.abs(logits - stored["logits"]).max()), float(stored["logits"].std())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_FILE)
    parser.add_argument(
        "--dev", action="store_true", help="the development questions instead of the frozen ones"
    )
    parser.add_argument("--wrong", action="store_true", help="print the wrong answers too")
    parser.add_argument(
        "--export-check", action="store_true", help="compare the last training run with llama.cpp"
    )
    arguments = parser.parse_args()
    if arguments.export_check:
        error, spread = export_error(BUILD_DIR / "reference.npz", BUILD_DIR / "guide-f32.gguf")
        print(json.dumps({"largest_logit_error": error, "logit_spread": spread}))
        return
    answerer = Answerer(arguments.model)
    on_topic = score(answerer, read_probes(DEV_QUESTIONS if arguments.dev else QUESTIONS))
    off_topic = score(answerer, read_off_topic(DEV_OFF_TOPIC if arguments.dev else OFF_TOPIC))
    for name, result in (("about DLLM", on_topic), ("off topic", off_topic)):
        print(f"{name}: {result.right}/{result.asked} = {result.share:.1%}")
        for question, answer in result.wrong if arguments.wrong else ():
            print(f"  {question}\n    -> {answer}")


if __name__ == "__main__":
    main()
