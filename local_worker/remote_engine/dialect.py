"""What one server understands of the completions interface, as found by asking it, and requests in its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

EXTENSIONS: Mapping[str, object] = {
    # vLLM: ids in place of texts; and there as at llama-server an end token is a row like any other.
    "return_tokens_as_token_ids": True,
    "ignore_eos": True,
    "skip_special_tokens": False,
    "cache_prompt": True,
    # Whatever bends the choice that temperature 0 leaves; each server has its own name for it.
    "repetition_penalty": 1.0,
    "repeat_penalty": 1.0,
    "min_p": 0.0,
}
"""Fields beyond OpenAI's; servers that refuse unknown ones are asked without."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to talk to a server."""

    model: str
    takes_ids: bool
    """Prompts go as token ids; else as text."""
    extended: bool
    """`EXTENSIONS` may be sent."""
    names_ids: bool = False
    """Its tokens come with ids; else by text alone."""
    max_top_k: int = 1
    echo_offset: int | None = None
    """Where an echo has the row after its n-th token: at n plus this; None: it has no echo that shows rows."""

    def request(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int,
        top_k: int,
        stream: bool = False,
        echo: bool = False,
        bias: Mapping[int, float] | None = None,
    ) -> dict[str, object]:
        """The body of a completions request."""
        body: dict[str, object] = {
            "model": self.model,
            "prompt": prompt if isinstance(prompt, str) else list(prompt),
            "max_tokens": max_tokens,
            "temperature": 0,
            "top_p": 1,
            "frequency_penalty": 0,
            "presence_penalty": 0,
            "logprobs": top_k,
            "stream": stream,
        }
        if self.extended:
            body |= EXTENSIONS
        if echo:
            body["echo"] = True
        if bias:
            body["logit_bias"] = {str(token): value for token, value in bias.items()}
        return body
