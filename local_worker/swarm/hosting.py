"""The worker's side of the exchange: libtorrent runs in children that hold no keys, and end with their parent."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dllm_protocol.errors import DllmError, UsageRefused, VerificationFailed
from dllm_protocol.model_manifest import Manifest, manifest_hash
from dllm_protocol.model_package.errors import LayersRefused, PieceRefused
from local_worker.packages.errors import DiskFull, OutputRefused, PackageNotFound
from local_worker.swarm.errors import (
    FetchStalled,
    ListenRefused,
    NoSourceLeft,
    NothingToSeed,
    SourcesLied,
    SwarmGone,
    SwarmMissing,
)
from local_worker.swarm.fetching import Fetched
from local_worker.swarm.sources import Limits, Place, numeric_place

ANSWER_BYTES_MAX: Final = 1 << 20
LINE_BYTES_MAX: Final = 1 << 16
STOP_S: Final = 10.0
_LEAVES: Final[dict[str, type[DllmError]]] = {
    kind.code: kind
    for kind in (
        *(DiskFull, FetchStalled, LayersRefused, ListenRefused, NoSourceLeft, NothingToSeed, OutputRefused),
        *(PackageNotFound, PieceRefused, SourcesLied, SwarmMissing, UsageRefused, VerificationFailed),
    )
}
"""What a child may say that went wrong."""
Heard = Callable[[str], None]


async def ensure_pieces(
    manifest: Manifest,
    first_layer: int,
    end_layer: int,
    package_dir: Path,
    peers: Sequence[Place],
    web_seeds: Sequence[str],
    limits: Limits,
    *,
    listen: Place | None = None,
    on_progress: Heard = lambda _: None,
    header_only: bool = False,
) -> Fetched:
    """Have the pieces of the layers [first_layer, end_layer) in a package, each compared with the manifest to the byte.

    A fetch that was ended, by whatever means, goes on where it was. Cancelling ends it.

    Args:
        manifest: proved by the caller.
        package_dir: a folder that is empty, or holds pieces of this model.
        peers: who may have them, from the records of the layers' holders.
        web_seeds: addresses of packages' folders behind HTTP.
        listen: where others may fetch from us meanwhile.
        on_progress: hears a line now and then.
        header_only: the header piece and no other, whatever the layers.

    Raises:
        As `local_worker.swarm.fetching.fetch`.
        SwarmMissing: libtorrent is not installed.
        SwarmGone: the child ended without an answer, or with one that nobody foresaw.
    """
    with tempfile.TemporaryDirectory(prefix="dllm-fetch-") as folder:
        path = Path(folder) / "wanted"
        path.write_bytes(manifest.encode())
        words = [
            *("fetch", f"--out={package_dir}", f"--layers={first_layer}:{end_layer}"),
            *(f"--peer={numeric_place(*one)}" for one in peers),
            *(f"--web-seed={one}" for one in web_seeds),
            *([f"--listen={numeric_place(*listen)}"] if listen is not None else []),
            *(["--header-only"] if header_only else []),
            *(
                f"--upload-limit={limits.upload_bytes_per_s}",
                f"--download-limit={limits.download_bytes_per_s}",
            ),
            *(f"--connections={limits.connections}", f"--idle={max(1, round(limits.idle_s))}"),
            *(f"--manifest-hash={manifest_hash(manifest).hex()}", "--lifeline", "--json", "--", str(path)),
        ]
        async with _child(words, on_progress) as child:
            data = await _answer(child)
    wanted = Fetched.__dataclass_fields__
    return Fetched(**{name: data[name] for name in wanted})


@dataclass(slots=True)
class SeedingProcess:
    """A child that serves packages; made by `seeding`.

    Attributes:
        listens_at: ``host:port`` where peers come to.
        piece_count: served when it began; those that come later are found within ten seconds.
    """

    listens_at: str
    piece_count: int
    _child: _Child

    async def wait(self) -> int:
        """Returns its exit code when it has ended, which it does by itself only when something is wrong."""
        return await self._child.wait()

    @classmethod
    @asynccontextmanager
    async def of(
        cls, packages: Sequence[Path], listen: Place, limits: Limits, on_progress: Heard = lambda _: None
    ) -> AsyncIterator[SeedingProcess]:
        """Serve packages for as long as the context lasts.

        Raises:
            PackageNotFound, ListenRefused, SwarmMissing: why it cannot.
            SwarmGone: the child ended without an answer, or with one that nobody foresaw.
        """
        words = [
            *("seed", f"--listen={numeric_place(*listen)}", f"--upload-limit={limits.upload_bytes_per_s}"),
            *(f"--connections={limits.connections}", "--lifeline", "--json", "--"),
            *(str(package) for package in packages),
        ]
        async with _child(words, on_progress) as child:
            data = await _answer(child)
            yield cls(str(data["listen"]), int(data["piece_count"]), child)


class _Child:
    """``dllm-worker model …`` as a process that lives no longer than its stdin."""

    def __init__(self, process: asyncio.subprocess.Process, on_progress: Heard) -> None:
        self._process = process
        self.last = ""
        self._following = asyncio.create_task(self._follow(on_progress))

    async def line(self) -> bytes:
        """The next line that it says; empty if it said nothing more."""
        assert self._process.stdout is not None
        try:
            return await self._process.stdout.readline()
        except ValueError as error:  # longer than any answer of ours
            raise SwarmGone(f"the child said more than {ANSWER_BYTES_MAX} bytes in a line") from error

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        return await self._process.wait()

    async def end(self) -> None:
        """Close its stdin, on which it ends; and make it end if it does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        finally:
            self._following.cancel()

    async def _follow(self, on_progress: Heard) -> None:
        assert self._process.stderr is not None
        while True:
            try:
                raw = await self._process.stderr.readline()
            except ValueError:  # longer than any line of ours: that part of it is left out
                continue
            if not raw:
                return
            self.last = raw.decode(errors="replace").strip()[:LINE_BYTES_MAX]
            on_progress(self.last)


@asynccontextmanager
async def _child(words: Sequence[str], on_progress: Heard) -> AsyncIterator[_Child]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local_worker.package_commands", *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        limit=ANSWER_BYTES_MAX,
    )
    child = _Child(process, on_progress)
    try:
        yield child
    finally:
        await asyncio.shield(child.end())


async def _answer(child: _Child) -> dict[str, Any]:
    try:
        envelope = json.loads(await child.line())
        if envelope["ok"]:
            return dict(envelope["data"])
        error = envelope["error"]
        code, message, hint = str(error["code"]), str(error["message"]), str(error["hint"])
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise SwarmGone(f"the child ended without an answer: {child.last or 'it said nothing'}") from problem
    kind = _LEAVES.get(code)
    raise kind(message, hint=hint) if kind else SwarmGone(f"{code}: {message}", hint=hint)
