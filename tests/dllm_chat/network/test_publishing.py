"""A bundle made by a person names the same network, with a root of now and a key that is theirs."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dllm_chat.network.publishing import KEY_FILE, sign_as_person, with_fresh_root
from dllm_protocol.errors import UsageRefused
from tests.dllm_chat.network.rig import NODE, PUBLISHER, WITNESS, make_world


def test_only_the_root_and_the_witnesses_differ(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    tip = world.chain.blocks[10].header
    made = with_fresh_root(world.bundle(), (WITNESS, NODE), tip)
    assert (made.trust_height, made.trust_hash) == (10, tip.hash())
    assert (made.genesis, made.sources, made.witnesses) == (world.genesis, (NODE,), (WITNESS,))


def test_the_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    first = sign_as_person(world.paths, world.bundle())
    assert first.signature_fits
    assert first.signer != PUBLISHER.public_key
    assert sign_as_person(world.paths, world.bundle(4)).signer == first.signer
    file = world.paths.data / KEY_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for bad in ("", "no hex", "00" * 31):
        file.write_text(bad)
        with pytest.raises(UsageRefused):
            sign_as_person(world.paths, world.bundle())
