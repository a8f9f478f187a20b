"""Decoders of what a server of completions answers: any program at an address that a person gave."""

from __future__ import annotations

from local_worker.engine.messages import EngineVocabulary
from local_worker.remote_engine.answers import EventReader, error_words, json_of, read_completion, read_models
from local_worker.remote_engine.words import Words
from tests.fuzz.decoder import Decoder
from tests.fuzz.protocol import as_json

_WORDS = Words(
    EngineVocabulary((b"<s>", b" a", b"b", b"\xff"), (8, 4, 4, 32), (0,), 0, 0, -1, True, True, "spm")
)
_BOUND = 4096

_BY_TEXT = {
    "model": "m",
    "choices": [
        {
            "text": " a",
            "finish_reason": "stop",
            "logprobs": {
                "tokens": ["token_id:1", " a"],
                "token_logprobs": [-0.5, -1],
                "top_logprobs": [{"token_id:1": -0.5, "token_id:2": -9999.0}, {" a": -1, "b": -2.5}],
            },
        }
    ],
    "usage": {"prompt_tokens": 3},
}
_TOKEN = {"id": 1, "token": " a", "bytes": [32, 97], "logprob": -0.5}
_BY_ID = {"choices": [{"text": " a", "logprobs": {"content": [_TOKEN | {"top_logprobs": [_TOKEN]}]}}]}


def _events(data: bytes) -> None:
    """Whole, and then byte by byte: the cuts must not matter."""
    whole = EventReader(_BOUND).feed(data)
    reader, pieces = EventReader(_BOUND), []
    for at in range(min(len(data), _BOUND)):
        pieces += reader.feed(data[at : at + 1])
    assert pieces == whole or len(data) > _BOUND


def _completion(data: bytes) -> None:
    for position, row in enumerate(read_completion(data).rows):
        if row is not None:
            output = _WORDS.output(row, position, 4)
            assert 1 <= len(output.ids) <= 4


def _error(data: bytes) -> None:
    whole = json_of(data)
    if isinstance(whole, dict):
        error_words(whole).encode("utf-8", "backslashreplace")


def decoders() -> list[Decoder]:
    """Lists of models, completions, events, errors."""
    room = "local_worker.remote_engine.answers"
    models = as_json({"data": [{"id": "m", "max_model_len": 4096}]})
    event = b": ping\r\n\r\nevent: x\ndata: " + as_json(_BY_ID) + b"\n\ndata: [DONE]\n\n"
    return [
        Decoder(f"{room}.read_models", "remote", read_models, (models,), is_json=True),
        Decoder(
            f"{room}.read_completion",
            "remote",
            _completion,
            (as_json(_BY_TEXT), as_json(_BY_ID), as_json({"error": {"message": "no"}})),
            is_json=True,
        ),
        Decoder(
            f"{room}.error_words", "remote", _error, (as_json({"error": {"message": "no"}}),), is_json=True
        ),
        Decoder(f"{room}.EventReader.feed", "remote-events", _events, (event,)),
    ]
