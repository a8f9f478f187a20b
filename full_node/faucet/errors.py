"""Why a faucet gives nothing."""

from __future__ import annotations

from dllm_protocol.errors import DllmError, TimedOut, UsageRefused


class FaucetRefused(UsageRefused):
    """It cannot run like this, or not on this network."""

    code = "E_FAUCET"


class BadRequest(UsageRefused):
    """What was asked is no request for tokens."""

    code = "E_FAUCET_REQUEST"


class LimitReached(DllmError):
    """Enough was given for now."""

    code = "E_FAUCET_LIMIT"
    exit_code = 5

    def __init__(self, message: str, retry_after_s: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s
        """When asking again may help."""


class FaucetBusy(TimedOut):
    """Too many wait for their tokens already."""

    code = "E_FAUCET_BUSY"
