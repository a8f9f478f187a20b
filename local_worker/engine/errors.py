"""What the engine can refuse or suffer, each under a name of its own."""

from __future__ import annotations

from dllm_protocol.errors import DllmError, UsageRefused


class ModelRefused(UsageRefused):
    """The file is no model, is damaged, or has an architecture outside the allow-list."""

    code = "E_MODEL_REFUSED"


class ContextFull(UsageRefused):
    """A sequence asked for more rows than its context holds."""

    code = "E_CONTEXT_FULL"


class DecodeRefused(UsageRefused):
    """A request that makes no sense to the engine: a gap in positions, an id outside the vocabulary."""

    code = "E_DECODE_REFUSED"


class EngineFull(DllmError):
    """Every sequence is in use; one must be closed first."""

    code = "E_ENGINE_FULL"
    exit_code = 3


class EngineBusy(DllmError):
    """The sequence is still decoding, or more calls wait than the engine takes."""

    code = "E_ENGINE_BUSY"
    exit_code = 3


class DecodeCancelled(DllmError):
    """The caller cancelled; rows decoded before that stay in the sequence."""

    code = "E_CANCELLED"


class DecodeMisled(DllmError):
    """What another stage told this one does not fit what its client says."""

    code = "E_MISLED"


class DecodeFailed(DllmError):
    """llama.cpp itself failed on a batch; the sequence was emptied."""

    code = "E_DECODE_FAILED"


class EngineGone(DllmError):
    """The engine process ended, on purpose or not, or spoke nonsense and was ended."""

    code = "E_ENGINE_GONE"
    exit_code = 3
