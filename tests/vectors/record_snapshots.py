"""Records `snapshots.json`: a snapshot's stream, manifest and identity.

``python -m tests.vectors.record_snapshots`` writes it anew; a change of the file is a change of a format.
"""

from __future__ import annotations

import json
from pathlib import Path

from dllm_protocol.jmt import key_position, root_of
from full_node.state.snapshots.format import (
    CHUNK_BYTES,
    FORMAT,
    Manifest,
    chunk_hash,
    describe,
    encode_pair,
)

FILE = Path(__file__).with_name("snapshots.json")
STATE = {b"chain": b"one", b"account/00": b"\x01\x02", b"params": b"p" * 300}
LONG = {b"long": bytes(range(256)) * 6_000, b"short": b"s"}


def _example(name: str, state: dict[bytes, bytes], height: int) -> dict[str, object]:
    ordered = sorted(state.items(), key=lambda pair: key_position(pair[0]))
    stream = b"".join(encode_pair(*pair) for pair in ordered)
    contents = [stream[at : at + CHUNK_BYTES] for at in range(0, len(stream), CHUNK_BYTES)]
    manifest = Manifest(
        FORMAT,
        "dllm-00000000",
        height,
        root_of(state),
        len(state),
        len(stream),
        tuple(chunk_hash(one) for one in contents),
    )
    return {
        "name": name,
        "keys in order": [key.decode() for key, _ in ordered],
        "stream begins": stream[:200].hex(),
        "stream length": len(stream),
        "chunk hashes": [one.hex() for one in manifest.chunk_hashes],
        "manifest": manifest.encode().hex(),
        "hash": describe(manifest).hash.hex(),
    }


def examples() -> dict[str, object]:
    """Everything in `snapshots.json`."""
    return {
        "description": "Bytes are hex. The second example's long value is 0…255 repeated 6,000 times.",
        "snapshots": [_example("one chunk", STATE, 7), _example("two chunks", LONG, 1_000_000)],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(examples(), indent=1, ensure_ascii=False) + "\n", "utf-8")
