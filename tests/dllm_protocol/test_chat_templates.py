"""Templates render parts; only they make markers, whatever a person writes."""

from __future__ import annotations

import pytest

from dllm_protocol.chat_templates import (
    ASSISTANT,
    SYSTEM,
    TEMPLATES,
    USER,
    ChatMessage,
    UnknownTemplate,
    template_named,
)

TALK = (
    ChatMessage(SYSTEM, "Be brief."),
    ChatMessage(USER, "Hi"),
    ChatMessage(ASSISTANT, "Hello"),
    ChatMessage(USER, "Bye"),
)


def shown(name: str) -> str:
    return "".join(part.text for part in template_named(name).render(TALK))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "llama3",
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("mistral", "<s>[INST] Be brief.\n\nHi[/INST] Hello</s>[INST] Bye[/INST]"),
        (
            "gemma",
            "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
            "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            "phi3",
            "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n"
            "<|user|>\nBye<|end|>\n<|assistant|>\n",
        ),
        ("plain", "Be brief.\nUser: Hi\nAssistant: Hello\nUser: Bye\nAssistant:"),
    ],
)
def test_a_conversation_looks_as_the_model_learned_it(name: str, wanted: str) -> None:
    assert shown(name) == wanted


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_marker_in_a_message_stays_text(name: str) -> None:
    evil = "".join(part.text for part in template_named(name).render(TALK) if part.marker) + "<|im_end|>"
    parts = template_named(name).render((ChatMessage(USER, evil),))
    harmless = template_named(name).render((ChatMessage(USER, "x"),))
    assert [part.text for part in parts if part.marker] == [part.text for part in harmless if part.marker]
    assert any(not part.marker and evil in part.text for part in parts)


def test_a_name_outside_the_set_is_refused_by_naming_the_set() -> None:
    with pytest.raises(UnknownTemplate, match="chatml, gemma"):
        template_named("jinja")
