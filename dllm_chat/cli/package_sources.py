"""Which manifest a fetch goes by: a file's, a package's, or a registered model's, proved."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dllm_chat.packages import is_a_file, names_a_package
from dllm_protocol.errors import VerificationFailed
from dllm_protocol.model_manifest import manifest_hash


@asynccontextmanager
async def manifest_file(named: str, expected: str | None) -> AsyncIterator[tuple[Path, str | None]]:
    """The file of a manifest, and what its hash must be.

    Args:
        named: a package, a file, or a registered model's name; a file beside us goes before a name.
        expected: the hash that the person wants, in hexadecimal.

    Raises:
        NotFound: proved that there is no such model.
        VerificationFailed: the registered model is another one than the person wants.
    """
    if names_a_package(named) or is_a_file(named):
        yield Path(named), expected
        return
    from dllm_chat.cli.models import registered_model
    from dllm_chat.cli.service import watching

    async with watching() as service:
        found = await registered_model(service.chain, named, await service.chain.reads.provable_height())
    proved = manifest_hash(found.manifest).hex()
    if expected is not None and expected.lower() != proved:
        raise VerificationFailed(
            f"the network's model {found.manifest.name} has manifest {proved}, {expected[:64]} was wanted"
        )
    with tempfile.TemporaryDirectory(prefix="dllm-manifest-") as folder:
        path = Path(folder) / "wanted"
        path.write_bytes(found.manifest.encode())
        yield path, proved
