"""How a conversation becomes a prompt: a closed set of templates, by name [format].

Templates inside model files are programs of strangers and are never run. A rendered prompt is a list of parts:
*text*, which a stage tokenises and the client checks, and *markers*, which are one control token where the
vocabulary has one of that name and plain text where it has not. Only the client places control tokens, so no
user text can ever become one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dllm_protocol.errors import UsageRefused

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"


class UnknownTemplate(UsageRefused):
    """A template name outside the closed set."""

    code = "E_TEMPLATE"


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation."""

    role: str
    """``system``, ``user`` or ``assistant``."""
    text: str


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a rendered prompt."""

    text: str
    marker: bool = False
    """Whether it is a control token's name rather than text."""


Parts = tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """One way to render conversations."""

    name: str
    render: Callable[[Sequence[ChatMessage]], Parts]
    """Messages → parts, ending where the assistant's answer begins."""
    ends: tuple[str, ...]
    """Markers (or texts) that end an answer."""


def _marker(text: str) -> Part:
    return Part(text, marker=True)


def _chatml(messages: Sequence[ChatMessage]) -> Parts:
    parts: list[Part] = []
    for message in messages:
        parts += [
            _marker("<|im_start|>"),
            Part(f"{message.role}\n{message.text}"),
            _marker("<|im_end|>"),
            Part("\n"),
        ]
    return (*parts, _marker("<|im_start|>"), Part("assistant\n"))


def _llama3(messages: Sequence[ChatMessage]) -> Parts:
    parts: list[Part] = [_marker("<|begin_of_text|>")]
    for message in messages:
        parts += [*_llama3_head(message.role), Part(f"\n\n{message.text}"), _marker("<|eot_id|>")]
    return (*parts, *_llama3_head(ASSISTANT), Part("\n\n"))


def _llama3_head(role: str) -> Parts:
    return (_marker("<|start_header_id|>"), Part(role), _marker("<|end_header_id|>"))


def _mistral(messages: Sequence[ChatMessage]) -> Parts:
    parts: list[Part] = [_marker("<s>")]
    for role, text in _system_into_first_user(messages):
        if role == USER:
            parts += [_marker("[INST]"), Part(f" {text}"), _marker("[/INST]")]
        else:
            parts += [Part(f" {text}"), _marker("</s>")]
    return tuple(parts)


def _gemma(messages: Sequence[ChatMessage]) -> Parts:
    parts: list[Part] = [_marker("<bos>")]
    for role, text in _system_into_first_user(messages):
        spoken = "model" if role == ASSISTANT else role
        parts += [_marker("<start_of_turn>"), Part(f"{spoken}\n{text}"), _marker("<end_of_turn>"), Part("\n")]
    return (*parts, _marker("<start_of_turn>"), Part("model\n"))


def _phi3(messages: Sequence[ChatMessage]) -> Parts:
    parts: list[Part] = []
    for message in messages:
        parts += [_marker(f"<|{message.role}|>"), Part(f"\n{message.text}"), _marker("<|end|>"), Part("\n")]
    return (*parts, _marker("<|assistant|>"), Part("\n"))


def _plain(messages: Sequence[ChatMessage]) -> Parts:
    names = {SYSTEM: "", USER: "User: ", ASSISTANT: "Assistant: "}
    text = "".join(f"{names[message.role]}{message.text}\n" for message in messages)
    return (Part(f"{text}Assistant:"),)


def _system_into_first_user(messages: Sequence[ChatMessage]) -> list[tuple[str, str]]:
    """For templates without a system role: its text goes before the first user message."""
    system = "\n\n".join(message.text for message in messages if message.role == SYSTEM)
    out: list[tuple[str, str]] = []
    for message in messages:
        if message.role == SYSTEM:
            continue
        text = f"{system}\n\n{message.text}" if system and message.role == USER else message.text
        if message.role == USER:
            system = ""
        out.append((message.role, text))
    return out


TEMPLATES: dict[str, ChatTemplate] = {
    template.name: template
    for template in (
        ChatTemplate("chatml", _chatml, ("<|im_end|>", "<|endoftext|>")),
        ChatTemplate("llama3", _llama3, ("<|eot_id|>", "<|end_of_text|>")),
        ChatTemplate("mistral", _mistral, ("</s>",)),
        ChatTemplate("gemma", _gemma, ("<end_of_turn>", "<eos>")),
        ChatTemplate("phi3", _phi3, ("<|end|>", "<|endoftext|>")),
        ChatTemplate("plain", _plain, ("\nUser:",)),
    )
}
"""The closed set."""


def template_named(name: str) -> ChatTemplate:
    """The template of that name.

    Raises:
        UnknownTemplate: naming the set.
    """
    template = TEMPLATES.get(name)
    if template is None:
        raise UnknownTemplate(f"no chat template {name!r}; there are {', '.join(sorted(TEMPLATES))}")
    return template
