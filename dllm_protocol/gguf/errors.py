"""What can be wrong with a model file, each under a name of its own."""

from __future__ import annotations

from dllm_protocol.errors import MalformedBytes


class NotAModelFile(MalformedBytes):
    """The file does not begin as a GGUF of a version that is read here."""

    code = "E_MODEL_FORMAT"


class ModelFileTruncated(MalformedBytes):
    """The file ends before what its head announces."""

    code = "E_MODEL_TRUNCATED"


class ModelFileDamaged(MalformedBytes):
    """A length, a count, a type or an offset that no writer of this format makes."""

    code = "E_MODEL_DAMAGED"
