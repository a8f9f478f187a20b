"""Programs make blocks only over states that fit them, and the state is carried over in one block on every node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol import state_keys
from dllm_protocol.genesis import chain_id_of
from dllm_protocol.params import Params
from dllm_protocol.records import AppVersion
from full_node.state_machine.application import Application
from full_node.state_machine.context import BlockContext
from full_node.state_machine.state import Overlay
from full_node.state_machine.upgrades.plan import Release, Upgrade, WrongProgram, app_version_of
from full_node.state_machine.upgrades.released import RELEASE
from tests.full_node.state_machine.world import GENESIS_TIME_MS, make_genesis

GENESIS = make_genesis()
CHAIN_ID = chain_id_of(GENESIS)
HEIGHT = 5


class Memory:
    """A state in memory."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)


def migrate(state: Overlay) -> None:
    params = state.read(state_keys.PARAMS, Params)
    assert params is not None
    state.write(state_keys.PARAMS, replace(params, epoch_ms=params.epoch_ms * 2))


NEW = Release(1, (Upgrade(CHAIN_ID, HEIGHT, 1, migrate), Upgrade("other-00000000", 2, 1, migrate)))


def _chain(release: Release = RELEASE) -> tuple[Memory, Application]:
    memory = Memory()
    application = Application(memory, release)
    memory.values.update(application.init_chain(GENESIS))
    application.note_committed(0, GENESIS_TIME_MS * 1_000_000)
    return memory, application


def _block(memory: Memory, application: Application, height: int) -> int | None:
    time_ns = (GENESIS_TIME_MS + height) * 1_000_000
    outcome = application.finalize_block(BlockContext(CHAIN_ID, height, time_ns), ())
    for key, value in outcome.changes.items():
        if value is None:
            memory.values.pop(key, None)
        else:
            memory.values[key] = value
    application.note_committed(height, time_ns)
    return outcome.app_version


def test_the_new_program_carries_the_state_over_in_the_first_block_and_never_again() -> None:
    memory, old = _chain()
    for height in range(1, HEIGHT + 1):
        assert _block(memory, old, height) is None
    before = Params.decode(memory.values[state_keys.PARAMS])
    new = Application(memory, NEW)
    new.note_committed(HEIGHT, GENESIS_TIME_MS * 1_000_000)
    assert (old.app_version, new.app_version) == (0, 0)
    assert _block(memory, new, HEIGHT + 1) == 1
    assert new.app_version == 1
    assert Params.decode(memory.values[state_keys.PARAMS]).epoch_ms == 2 * before.epoch_ms
    assert _block(memory, new, HEIGHT + 2) is None
    assert Params.decode(memory.values[state_keys.PARAMS]).epoch_ms == 2 * before.epoch_ms
    with pytest.raises(WrongProgram, match=r"app version 1, this program runs 0"):
        Application(memory).note_committed(HEIGHT + 2, 0)


def test_transactions_that_wait_are_judged_by_the_coming_rules() -> None:
    memory, old = _chain()
    for height in range(1, HEIGHT + 1):
        _block(memory, old, height)
    new = Application(memory, NEW)
    new.note_committed(HEIGHT, GENESIS_TIME_MS * 1_000_000)
    assert app_version_of(new._waiting.newest) == 1
    assert app_version_of(memory) == 0


@pytest.mark.parametrize("height", [0, HEIGHT - 1])
def test_the_new_program_does_not_begin_early(height: int) -> None:
    with pytest.raises(WrongProgram, match=f"takes over after height {HEIGHT}") as caught:
        NEW.require_fit(CHAIN_ID, height, 0)
    assert f"--halt-height {HEIGHT}" in caught.value.hint


def test_a_chain_that_went_past_its_upgrade_is_refused() -> None:
    with pytest.raises(WrongProgram, match=f"should have taken over after height {HEIGHT}"):
        NEW.require_fit(CHAIN_ID, HEIGHT + 1, 0)


@pytest.mark.parametrize(
    ("chain_id", "state_version", "release"),
    [("unknown-00000000", 0, NEW), (CHAIN_ID, 0, replace(NEW, app_version=2)), (CHAIN_ID, 3, NEW)],
)
def test_a_program_without_a_way_from_there_says_so(
    chain_id: str, state_version: int, release: Release
) -> None:
    with pytest.raises(WrongProgram, match=f"app version {state_version}, this program runs"):
        release.require_fit(chain_id, HEIGHT, state_version)


def test_a_step_of_two_versions_is_no_way() -> None:
    leap = Release(2, (Upgrade(CHAIN_ID, HEIGHT, 2, migrate),))
    with pytest.raises(WrongProgram, match="app version 0, this program runs 2"):
        leap.require_fit(CHAIN_ID, HEIGHT, 0)


def test_a_new_chain_begins_under_the_rules_of_its_program() -> None:
    memory, application = _chain(NEW)
    assert AppVersion.decode(memory.values[state_keys.APP_VERSION]) == AppVersion(1)
    assert application.app_version == 1
    assert _block(memory, application, HEIGHT + 1) is None
    assert state_keys.APP_VERSION not in _chain()[0].values


def test_before_genesis_the_program_says_what_it_would_begin_with() -> None:
    assert Application(Memory(), NEW).app_version == 1
