"""What a worker tells whoever asks for pieces: the port at which it seeds them [format].

The port alone: the address is the one at which it was asked, so that nobody can send others to a third party.
"""

from __future__ import annotations

from typing import Final

from dllm_protocol.encoding import FormatVersion, Record, Unsigned, record, wire

SEEDING_VERSION: Final = 1
SEEDING_PATH: Final = "/seeding-place"
"""Behind a provider's own endpoint, over HTTP."""
SEEDING_BYTES_MAX: Final = 64
"""No place takes more."""


@record
class SeedingPlace(Record):
    """Where BitTorrent peers may come to, at the address that was asked."""

    version: int = wire(1, FormatVersion(SEEDING_VERSION))
    """1."""
    port: int = wire(2, Unsigned(65_535, minimum=1))
    """Where BitTorrent peers may come to, at the address that was asked."""
