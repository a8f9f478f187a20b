"""Upgrades of a running chain: at which height the rules change, and how the state is carried over.

The *app version* numbers the rules. A program runs the rules of one version. The old program stops after a block H
that everybody agreed on beforehand; block H + 1 is made by the new program, which first migrates the state and writes
the new version into it. So the state says which rules made it, every node migrates in the same block, and a program
that does not fit the state is refused before it makes a block. See docs/operating/upgrade.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dllm_protocol import state_keys
from dllm_protocol.errors import UsageRefused
from dllm_protocol.records import AppVersion
from full_node.state_machine.state import Overlay, StateReader, read


class WrongProgram(UsageRefused):
    """This program does not run the rules that the chain's next block needs."""

    code = "E_APP_VERSION"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A change of rules on one chain.

    Attributes:
        chain_id: the chain.
        height: the last block of the old program.
        app_version: the rules from the next block on; one more than before.
        migrate: carries the state over, deterministically; run once, before that block's transactions.
    """

    chain_id: str
    height: int
    app_version: int
    migrate: Callable[[Overlay], None]


@dataclass(frozen=True, slots=True)
class Release:
    """What a program runs.

    Attributes:
        app_version: the rules of this program; a new chain begins under them.
        upgrades: for chains that began under older rules, how this version is reached.
    """

    app_version: int
    upgrades: tuple[Upgrade, ...] = ()

    def require_fit(self, chain_id: str, height: int, state_version: int) -> None:
        """Whether this program may make the block after `height`, over a state of `state_version`.

        Raises:
            WrongProgram: naming both versions, and what to do.
        """
        if state_version == self.app_version:
            return
        said = f"the state at height {height} has app version {state_version}, this program runs {self.app_version}"
        if state_version > self.app_version:
            raise WrongProgram(said, hint="start the newer program that made this state")
        upgrade = self._upgrade_of(chain_id)
        if upgrade is None or state_version != upgrade.app_version - 1:
            no_way = f"this program knows no way from version {state_version} on {chain_id}"
            raise WrongProgram(said, hint=f"{no_way}: start the program of version {state_version}")
        if height < upgrade.height:
            raise WrongProgram(
                f"{said} and takes over after height {upgrade.height}",
                hint=f"let the old program go on with --halt-height {upgrade.height}, then start this one",
            )
        if height > upgrade.height:
            raise WrongProgram(
                f"{said} and should have taken over after height {upgrade.height}: "
                "the old program went past it",
                hint="restore a backup or a snapshot from before that height, or join again by state sync",
            )

    def due(self, chain_id: str, height: int, state_version: int) -> Upgrade | None:
        """The upgrade that block `height` begins with; None in almost every block."""
        if state_version == self.app_version:
            return None
        upgrade = self._upgrade_of(chain_id)
        return upgrade if upgrade is not None and upgrade.height + 1 == height else None

    def _upgrade_of(self, chain_id: str) -> Upgrade | None:
        fitting = (
            one for one in self.upgrades if (one.chain_id, one.app_version) == (chain_id, self.app_version)
        )
        return next(fitting, None)


def app_version_of(state: StateReader) -> int:
    """The rules that made a state; 0 where no upgrade changed them."""
    record = read(state, state_keys.APP_VERSION, AppVersion)
    return 0 if record is None else record.version


def apply_upgrade(state: Overlay, upgrade: Upgrade) -> None:
    """Carries the state over and writes the new version into it."""
    upgrade.migrate(state)
    state.write(state_keys.APP_VERSION, AppVersion(upgrade.app_version))
