"""The engine's vocabulary in the protocol's canonical form, and what it says about the model's chat format.

The pieces come out of a stranger's file by way of the engine process; they are bounded again here.
"""

from __future__ import annotations

from collections.abc import Iterable

from dllm_protocol.vocabulary import (
    CONTROL,
    MAX_PIECE_BYTES,
    NO_TOKEN,
    NORMAL,
    UNUSED,
    TokenPiece,
    Vocabulary,
)
from local_worker.engine import messages
from local_worker.engine.errors import ModelRefused
from local_worker.engine.messages import EngineVocabulary

_MARKERS = (
    ("chatml", (b"<|im_start|>", b"<|im_end|>")),
    ("llama3", (b"<|start_header_id|>", b"<|end_header_id|>", b"<|eot_id|>")),
    ("gemma", (b"<start_of_turn>", b"<end_of_turn>")),
    ("phi3", (b"<|user|>", b"<|assistant|>", b"<|end|>")),
    ("mistral", (b"[INST]", b"[/INST]")),
)


def canonical_vocabulary(engine: EngineVocabulary) -> Vocabulary:
    """The protocol's vocabulary of what the engine loaded.

    Raises:
        ModelRefused: a piece is longer than the protocol takes.
    """
    pieces = []
    for token, (text, attributes) in enumerate(zip(engine.pieces, engine.attributes, strict=True)):
        if len(text) > MAX_PIECE_BYTES:
            raise ModelRefused(f"token {token} has {len(text)} bytes, the protocol takes {MAX_PIECE_BYTES}")
        pieces.append(TokenPiece(text, _kind(attributes)))
    end = engine.eot if engine.eot >= 0 else engine.eos
    return Vocabulary(
        1,
        tuple(pieces),
        engine.bos if engine.bos >= 0 else NO_TOKEN,
        end if end >= 0 else NO_TOKEN,
        int(engine.adds_bos),
        int(engine.adds_space),
    )


def guess_chat_template(pieces: Iterable[bytes]) -> str:
    """The closed set's template whose markers the vocabulary has as tokens; ``plain`` where it has none's.

    Markers decide, not the template inside the file: that one is a program of a stranger, and only markers that
    are single tokens were ever trained.
    """
    known = set(pieces)
    return next((name for name, markers in _MARKERS if known.issuperset(markers)), "plain")


def _kind(attributes: int) -> int:
    if attributes & messages.UNUSED:
        return UNUSED
    # The unknown token spells nothing that the client could check, so it is as unsayable as a control token.
    if attributes & (messages.CONTROL | messages.UNKNOWN):
        return CONTROL
    return NORMAL
