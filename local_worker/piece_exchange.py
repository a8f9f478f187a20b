"""A worker's part in the exchange of pieces: it fetches those that its layers need, and serves those that it has."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NoReturn

from dllm_protocol.errors import DllmError, UsageRefused
from dllm_protocol.model_manifest import Manifest
from local_worker.chain import Chain
from local_worker.holder_places import HolderPlaces
from local_worker.swarm import Limits, SeedingProcess, Sources, ensure_pieces
from local_worker.swarm.errors import NobodySeeds, SwarmGone
from local_worker.swarm.sources import PEERS_MAX, Place, place_from, rate_from, resolved, sources_from

_log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 1.0
MOST_PAUSE_S: Final = 300.0
SOUND_S: Final = 60.0
"""Who served so long is started again at once; pauses grow only where it ends again and again."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Where missing pieces come from, and where those that are there are served."""

    sources: Sources = field(default_factory=Sources)
    seed_at: Place | None = None
    """Numeric host, and port (0 takes a free one); None: nothing is served."""
    limits: Limits = field(default_factory=Limits)
    holders: HolderPlaces | None = None
    """How holders of the layers are asked where they seed; None: they are not asked."""

    @property
    def has_sources(self) -> bool:
        """Whether anybody may be asked for pieces."""
        return self.has_named_sources or self.holders is not None

    @property
    def has_named_sources(self) -> bool:
        """Whether a person has named somebody who may be asked for pieces."""
        return bool(self.sources.peers or self.sources.web_seeds)

    def on_local_chain(self) -> Exchange:
        """The same where all holders are on this machine, or close."""
        return self if self.holders is None else replace(self, holders=replace(self.holders, near=True))

    async def fetch(
        self,
        chain: Chain,
        manifest: Manifest,
        first_layer: int,
        end_layer: int,
        package: Path,
        *,
        header_only: bool = False,
    ) -> None:
        """Have the pieces of the layers [first_layer, end_layer) in a package; those that are right are kept.

        Args:
            chain: names the layers' holders.
            manifest: proved by the caller.
            header_only: the header piece and no other, whatever the layers.

        Raises:
            NobodySeeds: nobody was named, and no holder seeds.
            As `ensure_pieces`.
        """
        peers = await self._peers(chain, manifest.name, first_layer, end_layer)
        if not peers and not self.sources.web_seeds:
            raise NobodySeeds(
                f"no holder of layers {first_layer}:{end_layer} of {manifest.name} seeds its pieces where this "
                "worker may ask, and no other source is named",
                hint="--peer host:port, or --web-seed https://host/NAME.package; with --near-holders also holders "
                "in private networks",
            )
        what = "the header" if header_only else f"what is missing of layers {first_layer}:{end_layer}"
        _log.info("%s of %s is fetched", what, manifest.name)
        try:
            done = await ensure_pieces(
                *(manifest, first_layer, end_layer, package),
                *(peers, self.sources.web_seeds, self.limits),
                on_progress=_log.info,
                header_only=header_only,
            )
        except OSError as error:
            raise SwarmGone(f"no process that fetches can be started: {error.strerror}") from error
        for source, reason in done.refused.items():
            _log.warning("%s is asked no more: %s", source, reason)
        _log.info("%d pieces are there, %d bytes of them were fetched", done.piece_count, done.fetched_bytes)

    async def _peers(self, chain: Chain, model: str, first_layer: int, end_layer: int) -> tuple[Place, ...]:
        """Those who were named, then holders; so many as can be asked."""
        if self.holders is None:
            return self.sources.peers
        found = await self.holders.find(chain, model, first_layer, end_layer)
        return tuple(dict.fromkeys((*self.sources.peers, *found)))[:PEERS_MAX]


def exchange_of(
    peers: Sequence[str],
    web_seeds: Sequence[str],
    seed: str,
    upload_limit: str,
    package: Path | None,
    layers: Sequence[str] | None,
    near_holders: bool = False,
) -> Exchange:
    """The exchange as a person typed it.

    Args:
        seed: ``host:port`` to serve pieces at; empty: nowhere.
        upload_limit: bytes a second to peers, ``2M``; ``0`` is without limit.
        package: into which pieces can come; with neither it nor layers there are no pieces.
        near_holders: holders on this machine and in private networks are asked, too.

    Raises:
        UsageRefused: naming the flag.
    """
    rate = rate_from(upload_limit)
    if rate and not seed:
        raise UsageRefused("--upload-limit is for --seed", hint="add --seed host:port, or leave it away")
    if seed and package is None and not layers:
        raise UsageRefused("--seed is for models in pieces", hint="name a package, or some layers")
    if (peers or web_seeds) and package is None:
        raise UsageRefused(
            "--peer and --web-seed are for --package", hint="name a folder for the pieces: --package DIR"
        )
    return Exchange(
        sources_from(list(peers), list(web_seeds)) if peers or web_seeds else Sources(),
        resolved(*place_from(seed, lowest_port=0))[0] if seed else None,
        Limits(upload_bytes_per_s=rate),
        HolderPlaces(near=near_holders) if package is not None else None,
    )


class PackageSeeding:
    """Serves a package while the worker lives. It earns nothing, so its end never ends the worker.

    Attributes:
        seeds_at: ``host:port`` where peers come to; empty while nothing is served.
        problem: why not; empty while something is.
    """

    def __init__(self, package: Path, at: Place, limits: Limits) -> None:
        self._package = package
        self._at = at
        self._limits = limits
        self.seeds_at = ""
        self.problem = ""

    @property
    def port(self) -> int:
        """Where peers come to; 0 while nothing is served."""
        return place_from(self.seeds_at)[1] if self.seeds_at else 0

    async def run(self) -> NoReturn:
        """Serve for ever. A child that ends is started again, at the same port, after a pause that grows."""
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = time.monotonic()
            try:
                await self._serve()
            except DllmError as error:
                self.problem = error.message
            except OSError as error:
                self.problem = f"no process that serves pieces can be started: {error.strerror}"
            finally:
                self.seeds_at = ""
            pause_s = FIRST_PAUSE_S if time.monotonic() - began_s >= SOUND_S else pause_s
            _log.warning("pieces are not served, again in %.0f s: %s", pause_s, self.problem)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MOST_PAUSE_S)

    async def _serve(self) -> None:
        async with SeedingProcess.of([self._package], self._at, self._limits, _log.info) as seeding:
            self.seeds_at, self.problem = seeding.listens_at, ""
            self._at = place_from(seeding.listens_at)
            _log.info("%d pieces are served at %s", seeding.piece_count, self.seeds_at)
            code = await seeding.wait()
            self.problem = f"the process that serves pieces ended with code {code}"
