"""Publishers and witnesses that the package knows by itself, so that joining their networks needs no comparing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pins:
    """What the package vouches for."""

    signers: Mapping[bytes, str] = field(default_factory=dict)
    """Public key of a publisher (32 bytes) → its name."""
    witnesses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Chain id → websockets of nodes that its publisher does not run."""


PACKAGED = Pins()
"""Empty as long as no public network runs: then every publisher is compared by fingerprint."""
