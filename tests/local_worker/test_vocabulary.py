"""The engine's vocabulary in canonical form, and the chat format that it gives away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.chat_templates import TEMPLATES
from dllm_protocol.vocabulary import CONTROL, MAX_PIECE_BYTES, NO_TOKEN, NORMAL, UNUSED, spelled
from local_worker.engine import messages
from local_worker.engine.errors import ModelRefused
from local_worker.engine.messages import EngineVocabulary
from local_worker.vocabulary import canonical_vocabulary, guess_chat_template

ENGINE = EngineVocabulary(
    pieces=(b"<unk>", b"<s>", b"a", b"\xe2", b"<pad>", b"[X]"),
    attributes=(
        messages.UNKNOWN,
        messages.CONTROL,
        messages.NORMAL,
        messages.BYTE,
        messages.UNUSED,
        messages.USER_DEFINED,
    ),
    end_ids=(1,),
    bos=1,
    eos=2,
    eot=-1,
    adds_bos=True,
    adds_space=False,
    tokenizer="spm",
)


def test_kinds_and_ends() -> None:
    made = canonical_vocabulary(ENGINE)
    assert [piece.kind for piece in made.pieces] == [CONTROL, CONTROL, NORMAL, NORMAL, UNUSED, NORMAL]
    assert (made.begin_token, made.end_token, made.adds_begin, made.adds_space) == (1, 2, 1, 0)
    assert spelled(made, [0, 1, 2, 3, 4, 5]) == b"a\xe2[X]"
    assert canonical_vocabulary(replace(ENGINE, eot=5)).end_token == 5
    bare = canonical_vocabulary(replace(ENGINE, bos=-1, eos=-1))
    assert (bare.begin_token, bare.end_token) == (NO_TOKEN, NO_TOKEN)


def test_a_piece_that_is_too_long_is_refused() -> None:
    long = (*ENGINE.pieces[:-1], b"x" * (MAX_PIECE_BYTES + 1))
    with pytest.raises(ModelRefused, match="token 5"):
        canonical_vocabulary(replace(ENGINE, pieces=long))


@pytest.mark.parametrize(
    ("markers", "name"),
    [
        ([b"<|im_start|>", b"<|im_end|>"], "chatml"),
        ([b"<|start_header_id|>", b"<|end_header_id|>", b"<|eot_id|>"], "llama3"),
        ([b"<start_of_turn>", b"<end_of_turn>"], "gemma"),
        ([b"<|user|>", b"<|assistant|>", b"<|end|>"], "phi3"),
        ([b"[INST]", b"[/INST]"], "mistral"),
        ([b"<|im_start|>"], "plain"),
        ([], "plain"),
    ],
)
def test_the_template_whose_markers_are_tokens(markers: list[bytes], name: str) -> None:
    assert guess_chat_template([b"hello", *markers]) == name
    assert name in TEMPLATES
