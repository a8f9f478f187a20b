"""A `dllm-node` of the next app version: ``python new_program.py CHAIN_ID HEIGHT ARGUMENTS…``.

What a release would have in `released.py` is put there before anything else is imported; the rest is the real program.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from dllm_protocol import state_keys
from dllm_protocol.params import Params
from full_node.state_machine.state import Overlay
from full_node.state_machine.upgrades import released
from full_node.state_machine.upgrades.plan import Release, Upgrade

NEW_VERSION = 1
ADDED_WINDOW_MS = 12_345


def migrate(state: Overlay) -> None:
    """Puts other parameters in force."""
    params = state.read(state_keys.PARAMS, Params)
    if params is None:
        raise ValueError("the state has no parameters")
    state.write(state_keys.PARAMS, replace(params, epoch_ms=params.epoch_ms + ADDED_WINDOW_MS))


if __name__ == "__main__":
    chain_id, height, *arguments = sys.argv[1:]
    released.RELEASE = Release(NEW_VERSION, (Upgrade(chain_id, int(height), NEW_VERSION, migrate),))
    sys.argv = ["dllm-node", *arguments]
    from full_node.cli import run

    run()
