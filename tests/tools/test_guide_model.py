"""The model in the package: its frozen questions, its corpus, and what the shipped file answers."""

from __future__ import annotations

import itertools
import random

import gguf
import pytest

from tools.guide_model import grammar, overlap
from tools.guide_model.answerer import Answerer
from tools.guide_model.config import MAX_FILE_BYTES, MODEL_FILE, SEED
from tools.guide_model.dialogues import Corpus
from tools.guide_model.evaluate import score
from tools.guide_model.overlap import Heldout
from tools.guide_model.tokenizer import FIRST_PIECE, Tokenizer


def test_the_heldout_questions_are_the_frozen_ones() -> None:
    assert overlap.actual_hashes() == overlap.frozen_hashes()


def test_there_are_enough_heldout_questions_and_each_has_key_facts() -> None:
    probes = overlap.read_probes(overlap.QUESTIONS)
    assert len({probe.question for probe in probes}) >= 200
    assert all(fact for probe in probes for group in probe.facts for fact in group)
    assert len({probe.question for probe in overlap.read_off_topic(overlap.OFF_TOPIC)}) >= 60


def test_no_training_question_or_answer_overlaps_a_heldout_question() -> None:
    grams: set[tuple[str, ...]] = set()
    for probe in overlap.read_probes(overlap.QUESTIONS) + overlap.read_off_topic(overlap.OFF_TOPIC):
        grams |= overlap.grams_of(probe.question)
    corpus = Corpus(Heldout(), late=True)
    for dialogue in itertools.islice(corpus.dialogues(SEED, 0.1, 0.2, (2, 3)), 40_000):
        for question, _ in dialogue.turns:
            assert grams.isdisjoint(overlap.grams_of(question)), question
    for intent in corpus.intents:
        assert grams.isdisjoint(overlap.grams_of(intent.answer)), intent.answer


def test_an_overlapping_question_would_be_noticed() -> None:
    probe = max(overlap.read_probes(overlap.QUESTIONS), key=lambda p: len(p.question))
    heldout = Heldout()
    assert heldout.overlaps(f"so tell me, {probe.question.upper()}")
    assert not heldout.overlaps("zebras graze quietly under seven green umbrellas near the harbour")


def test_the_same_seed_gives_the_same_dialogues() -> None:
    one, two = (Corpus(Heldout(), late=True).dialogues(5, 0.1, 0.2, (2, 3)) for _ in range(2))
    assert list(itertools.islice(one, 200)) == list(itertools.islice(two, 200))


def test_brackets_that_do_not_match_are_refused() -> None:
    for wrong in ("a [b", "a] b", "a | b"):
        with pytest.raises(grammar.CorpusError):
            grammar.parse(wrong)
    phrase = grammar.parse("x [a|[b|c]|]")
    assert {phrase.sample(random.Random(seed), {}, {}) for seed in range(60)} == {"x a", "x b", "x c", "x "}


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    """The shipped file, loaded once in llama.cpp."""
    return Answerer(MODEL_FILE)


def test_the_file_fits_the_package() -> None:
    assert MODEL_FILE.stat().st_size <= MAX_FILE_BYTES


def test_llama_cpp_spells_text_as_the_training_did(answerer: Answerer) -> None:
    field = gguf.GGUFReader(MODEL_FILE).fields["tokenizer.ggml.tokens"]
    tokens = [bytes(field.parts[at]).decode() for at in field.data]
    tokenizer = Tokenizer(tokens[FIRST_PIECE:])
    dialogues = itertools.islice(Corpus(Heldout(), late=True).dialogues(7, 0.1, 0.2, (2, 3)), 300)
    texts = [text for dialogue in dialogues for turn in dialogue.turns for text in turn]
    for text in [*texts, "user\nÜbung: 10 € für <b>x</b>  two  spaces\n\n\ttab \U0001f600", " leading", ""]:
        assert tokenizer.encode(text) == answerer.tokenize(text, special=False), text


def test_four_in_five_heldout_questions_are_answered_right(answerer: Answerer) -> None:
    result = score(answerer, overlap.read_probes(overlap.QUESTIONS))
    assert result.share >= 0.8, result.wrong


def test_nine_in_ten_off_topic_questions_get_an_honest_answer(answerer: Answerer) -> None:
    result = score(answerer, overlap.read_off_topic(overlap.OFF_TOPIC))
    assert result.share >= 0.9, result.wrong


def test_the_first_question_of_every_newcomer_is_answered_well(answerer: Answerer) -> None:
    for question in ("What is DLLM?", "what is dllm", "What is dllm?"):
        answer = answerer.answer(question)
        assert "language models" in answer
        assert "nobody owns" in answer


def test_a_second_question_is_answered_after_a_first(answerer: Answerer) -> None:
    first = answerer.answer("What is a voucher?")
    assert "voucher" in first
    second = answerer.answer("How do I create a wallet?", history=(("What is a voucher?", first),))
    assert "dllm wallet create" in second
