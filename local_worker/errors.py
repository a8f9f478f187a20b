"""What a worker can refuse or suffer, each under a name of its own (the engine's are in `engine.errors`)."""

from __future__ import annotations

from dllm_protocol.errors import (
    ChannelRefused,
    MalformedBytes,
    UsageRefused,
    VerificationFailed,
)


class HomeRefused(UsageRefused):
    """The worker's home is missing, taken, or not what it should be."""

    code = "E_WORKER_HOME"


class KeysDamaged(MalformedBytes):
    """The key file is not what this program wrote."""

    code = "E_WORKER_KEYS"


class HomeBusy(UsageRefused):
    """Another worker runs in this home."""

    code = "E_WORKER_BUSY"


class ModelMismatch(VerificationFailed):
    """A model file that is not what the registry promises under that name."""

    code = "E_MODEL_MISMATCH"


class ModelNotRegistered(UsageRefused):
    """The registry has no such model, and this worker may not register it."""

    code = "E_MODEL_UNREGISTERED"


class NotRegistered(UsageRefused):
    """The owner has not registered this worker's provider."""

    code = "E_PROVIDER_UNREGISTERED"


class NotServed(ChannelRefused):
    """A session that this worker does not serve; the client is told why."""

    code = "E_NOT_SERVED"


class ChainSilent(NotServed):
    """The chain cannot be asked now: nothing new is served, and nothing that is being served ends for it."""

    code = "E_CHAIN_SILENT"


class RowsUnusable(ChannelRefused):
    """Hidden states of a wrong shape, or that are not numbers."""

    code = "E_ROWS_UNUSABLE"


class PreviousStageFailed(ChannelRefused):
    """The stage before gave nothing usable: the client puts another provider there, or links the two again."""

    code = "E_PREVIOUS_STAGE"


class NextStageFailed(ChannelRefused):
    """The stage behind takes nothing: the client puts another provider there, or links the two again."""

    code = "E_NEXT_STAGE"
