"""A model in pieces that this machine serves: where its pieces lie, come from and go to, and how the worker is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dllm_protocol.errors import UsageRefused

AUTO_LAYERS = "auto"


@dataclass(frozen=True, slots=True)
class ServingPieces:
    """A package and what becomes of its pieces; the worker's program checks what is said here."""

    package: Path
    layers: str = ""
    """``FIRST:END``, or `AUTO_LAYERS`; empty: all of them."""
    most_layers: int | None = None
    name: str = ""
    """Of the registered model; needed where the package is still empty."""
    peers: tuple[str, ...] = ()
    web_seeds: tuple[str, ...] = ()
    near_holders: bool = False
    seed: str = ""
    """``host:port`` at which its pieces are served to others; empty: nowhere."""
    upload_limit: str = "0"

    @classmethod
    def chosen(
        cls,
        package: Path | None,
        layers: str,
        most_layers: int | None,
        name: str,
        peers: tuple[str, ...],
        web_seeds: tuple[str, ...],
        near_holders: bool,
        seed: str,
        upload_limit: str,
    ) -> ServingPieces | None:
        """What a person's options mean; None where a file is served.

        Raises:
            UsageRefused: options that need others.
        """
        if package is None:
            said = (layers, most_layers, name, peers, web_seeds, near_holders, seed, upload_limit != "0")
            if any(one not in ("", None, (), False) for one in said):
                raise UsageRefused(
                    "--layers, --most-layers, --name, --peer, --web-seed, --near-holders, --seed and "
                    "--upload-limit are for a model in pieces",
                    hint="name a folder for them: --package DIR",
                )
            return None
        if most_layers is not None and layers != AUTO_LAYERS:
            raise UsageRefused("--most-layers is for --layers auto", hint="name the layers, or leave it away")
        if upload_limit != "0" and not seed:
            raise UsageRefused("--upload-limit is for --seed", hint="add --seed host:port, or leave it away")
        rest = (name, peers, web_seeds, near_holders, seed, upload_limit)
        return cls(package.absolute(), layers, most_layers, *rest)

    def options(self) -> list[str]:
        """Words of ``dllm-worker start``."""
        words = [f"--package={self.package}"]
        words += [f"--layers={self.layers}"] if self.layers else []
        words += [f"--most-layers={self.most_layers}"] if self.most_layers is not None else []
        words += [f"--name={self.name}"] if self.name else []
        words += [f"--peer={one}" for one in self.peers]
        words += [f"--web-seed={one}" for one in self.web_seeds]
        words += ["--near-holders"] if self.near_holders else []
        words += [f"--seed={self.seed}"] if self.seed else []
        return words + ([f"--upload-limit={self.upload_limit}"] if self.upload_limit != "0" else [])
