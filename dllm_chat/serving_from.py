"""A server of the person's own that computes a worker's rows, and how the worker's program is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from dllm_protocol.errors import UsageRefused


@dataclass(frozen=True, slots=True)
class ServingFrom:
    """A server that speaks OpenAI's completions interface; the worker's program checks what is said here."""

    url: str
    key_file: str = ""
    """Where its key lies; the key itself is read by the worker alone."""
    model: str = ""
    """Its name for the model; empty where it serves one only."""

    @classmethod
    def chosen(cls, backend: str, url: str, key_file: str, model: str) -> ServingFrom | None:
        """What a person's options mean; None for llama.cpp here.

        Raises:
            UsageRefused: options of a backend that was not chosen, or one that does not exist.
        """
        if backend == "openai" and url:
            return cls(url, key_file, model)
        if backend == "openai":
            raise UsageRefused("--backend openai needs --url", hint="for example http://127.0.0.1:8000/v1")
        if backend != "llama.cpp":
            raise UsageRefused(f"there is no backend {backend[:40]!a}", hint="llama.cpp or openai")
        if url or key_file or model:
            raise UsageRefused("--url, --api-key-file and --remote-model are for --backend openai")
        return None

    @classmethod
    def of_request(cls, said: object) -> ServingFrom | None:
        """The same out of a request to the embedded network's supervisor."""
        if not isinstance(said, Mapping):
            return None
        url, key_file, model = (str(said.get(name, "")) for name in ("url", "key_file", "model"))
        return cls(url, key_file, model) if url else None

    def request(self) -> dict[str, str]:
        """The form that `of_request` takes."""
        return asdict(self)

    def options(self) -> list[str]:
        """Words of ``dllm-worker start``."""
        words = ["--backend", "openai", f"--url={self.url}"]
        words += [f"--api-key-file={self.key_file}"] if self.key_file else []
        return words + ([f"--remote-model={self.model}"] if self.model else [])
