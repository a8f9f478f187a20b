"""What the proxy refuses with.

VerificationFailed
└── Unprovable          nothing can prove an answer to that, so none is given
"""

from __future__ import annotations

from dllm_protocol.errors import VerificationFailed


class Unprovable(VerificationFailed):
    """A question whose answer no header proves."""

    code = "E_UNPROVABLE"
