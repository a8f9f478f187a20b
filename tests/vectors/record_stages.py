"""Record `stages.json`: what a client says to stages, and a stage to the next one over a link and over a lane, from
fixed seeds. Run only when the format changes.

python -m tests.vectors.record_stages
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dllm_protocol.encoding import Record
from dllm_protocol.hashing import sha256
from dllm_protocol.lane import (
    KIND_BF16,
    KIND_F32,
    KIND_HELLO,
    KIND_TOKEN,
    LaneMessage,
    LaneStream,
    token_body,
)
from dllm_protocol.messages import (
    FORM_ANY,
    FORM_BF16,
    FORM_F32,
    OUTPUTS_HELD,
    OUTPUTS_LAST,
    ROW_KEPT,
    ROW_REPLAYED,
    Decode,
    Expect,
    Frame,
    Linked,
    Neighbours,
    Pong,
    Resend,
    Unlinked,
    pack_ids,
)
from dllm_protocol.sealing import SealedStream, SealingKey
from dllm_protocol.session.handshake import ClientHandshake, ProviderHandshake
from dllm_protocol.session.transcript import NO_TRANSCRIPT, RowLabel, Transcript
from dllm_protocol.signing import SeedSigner
from dllm_protocol.stage_link import (
    Filled,
    Filler,
    HandedRows,
    StageFrame,
    StageGoodbye,
    StageLink,
    StageReady,
    make_stage_claim,
)

VECTORS = Path(__file__).parent / "stages.json"
CHAIN_ID = "vectors-00000000"
FIRST, SECOND = b"\x21" * 20, b"\x22" * 20
SECRET = b"\x0d" * 32
IDS = [5, 6, 7, 9]
LANE_KEYS = {"dialling": b"\x08" * 32, "answering": b"\x09" * 32}
"""What either side of a lane seals with."""


def record() -> dict[str, Any]:
    """Messages, labels, a transcript, and the first frames of a link and of a lane."""
    label = RowLabel(SECRET).of(IDS)
    expect = Expect(3, 3, 1, ROW_KEPT, 8, OUTPUTS_LAST, label, 1)
    transcript = Transcript(b"\x0e" * 32, NO_TRANSCRIPT)
    transcript.absorb_expect(expect)
    dialler, handshake = SeedSigner(b"\x07" * 32), sha256(b"handshake")
    to_stages: list[Record] = [
        Neighbours(2, FIRST, b"", FORM_ANY, b""),
        Neighbours(3, FIRST, b"", FORM_ANY, FIRST),
        Linked(2, FORM_BF16, 51_000, 9_000_000),
        Unlinked(2, "it hung up"),
        expect,
        Expect(4, 0, 256, ROW_REPLAYED, 8, OUTPUTS_HELD, label, 0),
        Resend(4, 0, 256),
        Decode(3, 3, pack_ids([9]), ROW_KEPT, 8, OUTPUTS_LAST, 1),
        Pong(7, 3),
        make_stage_claim(dialler, FIRST, handshake),
        make_stage_claim(dialler, FIRST, handshake, lane=True),
    ]
    between: list[Record] = [
        StageReady(2048),
        HandedRows(3, 3, 1, FORM_F32, bytes(range(8))),
        HandedRows(3, 3, 1, FORM_BF16, bytes(range(4))),
        Filler(1, b""),
        Filled(1),
        StageGoodbye("the session ends"),
    ]
    return {
        "label": {"secret": SECRET.hex(), "ids": IDS, "hex": label.hex()},
        "transcript": transcript.head.hex(),
        "to_stages": [
            {"type": type(one).__name__, "frame": Frame((one,)).encode().hex()} for one in to_stages
        ],
        "between": [
            {"type": type(one).__name__, "frame": StageFrame((one,)).encode().hex()} for one in between
        ],
        "link": [{"what": what, "hex": raw.hex()} for what, raw in _link()],
        "lane": _lane(),
    }


def _link() -> list[tuple[str, bytes]]:
    """The stage before dials, proves itself, and hands a row on."""
    service, sealing = SeedSigner(b"\x03" * 32), SealingKey(b"\x04" * 32)
    dialling = ClientHandshake(
        chain_id=CHAIN_ID,
        provider=SECOND,
        session=sha256(b"session"),
        service_key=service.public_key,
        sealing_key=sealing.public_key,
        ephemeral_seed=b"\x05" * 32,
    )
    answering = ProviderHandshake(
        dialling.first_message, chain_id=CHAIN_ID, provider=SECOND, sealing_key=sealing
    )
    hello, theirs, _ = answering.answer(service, b"\x06" * 32)
    ours, hash_of_handshake = dialling.finish(hello)
    before, behind = StageLink(ours), StageLink(theirs)
    claim = make_stage_claim(SeedSigner(b"\x07" * 32), FIRST, hash_of_handshake)
    return [
        ("hello of the stage before", dialling.first_message),
        ("hello of the stage behind", hello),
        ("claim", before.claim(claim)),
        ("ready", behind.seal(StageReady(2))),
        ("a row", before.seal(HandedRows(1, 0, 1, FORM_F32, bytes(8)))),
    ]


def _lane() -> dict[str, Any]:
    """Both sides say hello, then every kind is sent; behind one frame either way, as claim and ready are."""
    dialling = SealedStream(*LANE_KEYS.values())
    answering = SealedStream(*reversed(LANE_KEYS.values()))
    answering.open(dialling.seal(b"claim"))
    dialling.open(answering.seal(b"ready"))
    ends = {
        "dialling": LaneStream(SealedStream.taken_over(dialling.hand_over())),
        "answering": LaneStream(SealedStream.taken_over(answering.hand_over())),
    }
    said = [
        ("dialling", LaneMessage(KIND_HELLO, 0, 0, b"")),
        ("answering", LaneMessage(KIND_HELLO, 0, 0, b"")),
        ("dialling", LaneMessage(KIND_F32, 3, 4, bytes(range(8)))),
        ("dialling", LaneMessage(KIND_BF16, 4, 5, bytes(range(4)))),
        ("dialling", LaneMessage(KIND_TOKEN, 5, 6, token_body(300))),
    ]
    return {
        "keys": {side: key.hex() for side, key in LANE_KEYS.items()},
        "first_nonce": 1,
        "frames": [
            {"from": side, **one._asdict(), "body": one.body.hex(), "hex": ends[side].pack(*one).hex()}
            for side, one in said
        ],
    }


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(record(), indent=1) + "\n")
