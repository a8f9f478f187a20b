"""One coverage-guided run over the decoders of a room: ``python -m tests.fuzz.coverage ROOM [libFuzzer options]``.

An input's first byte chooses the decoder. Wants atheris (``make fuzz`` installs it).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["dllm_protocol", "full_node", "light_node", "local_worker", "dllm_chat"]
):
    from tests.fuzz.decoder import Decoder, refused
    from tests.fuzz.mutations import bent
    from tests.fuzz.table import rooms

STRUCTURED_SHARE = 0.5
"""How often an input is bent by its structure instead of by libFuzzer."""


def target(members: Sequence[Decoder]) -> Callable[[bytes], None]:
    """What libFuzzer calls; an error that is not declared comes out of it and ends the run."""

    def one_input(data: bytes) -> None:
        if data:
            refused(members[data[0] % len(members)], data[1:])

    return one_input


def mutator(members: Sequence[Decoder]) -> Callable[[bytes, int, int], bytes]:
    """libFuzzer's own mutations, or ours that know JSON and protocol buffers."""

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if not data or chance.random() > STRUCTURED_SHARE:
            return bytes(atheris.Mutate(data, max_size))
        decoder = members[data[0] % len(members)]
        return (data[:1] + bent(data[1:], chance, is_json=decoder.is_json))[:max_size]

    return mutate


def write_seeds(members: Sequence[Decoder], corpus: Path) -> None:
    """The golden examples, each behind the number of its decoder."""
    corpus.mkdir(parents=True, exist_ok=True)
    for number, decoder in enumerate(members):
        for at, example in enumerate(decoder.examples):
            (corpus / f"seed-{number}-{at}").write_bytes(bytes((number,)) + example)


def main() -> None:
    """Runs until libFuzzer's options say stop."""
    room, options = sys.argv[1], sys.argv[2:]
    members = rooms()[room]
    write_seeds(members, Path(options[-1]))
    atheris.Setup([sys.argv[0], *options], target(members), custom_mutator=mutator(members))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
