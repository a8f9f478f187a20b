"""What the client remembers of a session's rows from one answer to the next."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field


@dataclass(slots=True)
class TokenLog:
    """Token ids that providers may still hold rows of, and the secret under which later stages know them."""

    ids: list[int] = field(default_factory=list)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
