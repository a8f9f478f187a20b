"""What the client remembers of a session's rows from one answer to the next."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from dllm_chat.session.together import Together


@dataclass(slots=True)
class TokenLog:
    """Token ids that providers may still hold rows of, and the secret under which later stages know them."""

    ids: list[int] = field(default_factory=list)
    together: Together = field(default_factory=Together)
    """Which of them were asked for together."""
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
