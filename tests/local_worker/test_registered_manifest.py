"""Under which name a worker serves a model: the registry's, also where another worker registers it at that moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol import records
from dllm_protocol.model_manifest import Manifest
from local_worker.model_service import PackagedModel, registered_manifest
from tests.local_worker.doubles import ChainDouble
from tests.local_worker.packages.chains import packed
from tests.local_worker.packages.tiny_models import SHAPES, write_model


class StaleChain(ChainDouble):
    """One whose list of names is a block older than what it says of a model."""

    async def model_names(self) -> tuple[str, ...]:
        return ()


@pytest.fixture
def own(tmp_path: Path) -> Manifest:
    model = write_model(tmp_path / "model.gguf", SHAPES["llama"])
    return packed(model, tmp_path / "package")


def registered(chain: ChainDouble, manifest: Manifest) -> None:
    chain.models[manifest.name] = records.ModelRecord(bytes(20), manifest, 0, records.MODEL_ACTIVE)


async def found(chain: ChainDouble, own: Manifest) -> Manifest:
    return await registered_manifest(chain, PackagedModel(own), "mine", name=None, chat_template=None)


async def test_a_model_that_nobody_knows_gets_the_name_that_is_free(own: Manifest) -> None:
    assert await found(ChainDouble(b"\1" * 20), own) == replace(own, name="mine")


@pytest.mark.parametrize("kind", [ChainDouble, StaleChain])
async def test_a_model_that_another_worker_registered_just_now_is_the_same_model(
    kind: type[ChainDouble], own: Manifest
) -> None:
    chain = kind(b"\1" * 20)
    registered(chain, replace(own, name="mine"))
    assert await found(chain, own) == replace(own, name="mine")


@pytest.mark.parametrize("kind", [ChainDouble, StaleChain])
async def test_another_model_of_that_name_leaves_it_another_one(
    kind: type[ChainDouble], own: Manifest
) -> None:
    chain = kind(b"\1" * 20)
    first, *others = own.pieces
    registered(chain, replace(own, name="mine", pieces=(replace(first, root=b"\7" * 32), *others)))
    made = await found(chain, own)
    assert made.name == f"mine-{PackagedModel(own).tag}" and made.pieces == own.pieces
