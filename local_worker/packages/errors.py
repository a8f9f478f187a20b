"""What can go wrong with a package on disk, each under a name of its own."""

from __future__ import annotations

from dllm_protocol.errors import DllmError, NotFound, UsageRefused


class PackageNotFound(NotFound):
    """No package is there, or a piece of it is missing."""

    code = "E_PACKAGE"


class OutputRefused(UsageRefused):
    """Something stands already where the output is to be, or nothing can be written there."""

    code = "E_OUTPUT"


class ModelChanged(DllmError):
    """The model file was written to while it was read."""

    code = "E_MODEL_CHANGED"


class DiskFull(DllmError):
    """There is not room enough for what is to be written."""

    code = "E_DISK_FULL"
