"""Why a devnet does not do what was asked."""

from __future__ import annotations

from dllm_protocol.errors import DllmError, NotFound, UsageRefused


class DevnetFailed(DllmError):
    """It could not be started, or a part of it failed."""

    code = "E_DEVNET"
    exit_code = 3


class DevnetRefused(UsageRefused):
    """What was asked does not fit the devnet, or the folder is not one."""

    code = "E_DEVNET_USAGE"


class NoDevnet(NotFound):
    """There is none, or it does not run."""

    code = "E_NO_DEVNET"
