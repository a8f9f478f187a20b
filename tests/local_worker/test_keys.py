"""Keys are made once, stay private, and rotate without changing who the operator is."""

from __future__ import annotations

import json
import pickle
import stat
from pathlib import Path

import pytest

from local_worker.errors import HomeRefused, KeysDamaged
from local_worker.keys import create_keys, key_file, load_keys, rotate_keys


def test_keys_are_found_again_and_differ_between_homes(tmp_path: Path) -> None:
    made, other = create_keys(tmp_path / "a"), create_keys(tmp_path / "b")
    found = load_keys(tmp_path / "a")
    assert found.operator_address == made.operator_address != other.operator_address
    assert found.service.public_key == made.service.public_key
    assert found.sealing.public_key == made.sealing.public_key
    assert stat.S_IMODE(key_file(tmp_path / "a").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    create_keys(tmp_path)
    before = key_file(tmp_path).read_bytes()
    with pytest.raises(HomeRefused, match="has keys already"):
        create_keys(tmp_path)
    assert key_file(tmp_path).read_bytes() == before


def test_rotation_keeps_the_operator(tmp_path: Path) -> None:
    before = create_keys(tmp_path)
    after = rotate_keys(tmp_path)
    assert after.operator_address == before.operator_address
    assert after.service.public_key != before.service.public_key
    assert after.sealing.public_key != before.sealing.public_key
    assert load_keys(tmp_path).service.public_key == after.service.public_key


def test_no_secret_shows(tmp_path: Path) -> None:
    keys = create_keys(tmp_path)
    seeds = json.loads(key_file(tmp_path).read_text())["seeds"].values()
    assert all(seed not in repr(keys) for seed in seeds)
    with pytest.raises(TypeError):
        pickle.dumps(keys.operator)


@pytest.mark.parametrize(
    "damage", ["{", '{"format": "x"}', '{"format": "dllm-worker-keys", "version": 1, "seeds": {}}']
)
def test_a_damaged_file_is_refused_without_showing_it(tmp_path: Path, damage: str) -> None:
    create_keys(tmp_path)
    key_file(tmp_path).write_text(damage)
    with pytest.raises(KeysDamaged) as caught:
        load_keys(tmp_path)
    assert caught.value.__cause__ is None


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    create_keys(tmp_path)
    key_file(tmp_path).chmod(0o644)
    with pytest.raises(HomeRefused, match="can be read by others"):
        load_keys(tmp_path)


def test_a_home_without_keys_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HomeRefused) as caught:
        load_keys(tmp_path)
    assert "dllm-worker init" in caught.value.hint
