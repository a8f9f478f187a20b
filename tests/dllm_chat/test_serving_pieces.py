"""A model in pieces: what a person's options mean, and that the worker's program understands what it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from dllm_chat.contributing import worker_command
from dllm_chat.serving_pieces import ServingPieces
from dllm_protocol.errors import UsageRefused
from local_worker.cli import app

NOTHING: dict[str, Any] = {
    "package": None,
    "layers": "",
    "most_layers": None,
    "name": "",
    "peers": (),
    "web_seeds": (),
    "near_holders": False,
    "seed": "",
    "upload_limit": "0",
}
ALL: dict[str, Any] = {
    "package": Path("big.package"),
    "layers": "auto",
    "most_layers": 8,
    "name": "big",
    "peers": ("192.0.2.7:6881", "[2001:db8::7]:6881"),
    "web_seeds": ("https://host.example/big.package",),
    "near_holders": True,
    "seed": "0.0.0.0:6881",
    "upload_limit": "2M",
}


def understood(command: list[str]) -> dict[str, Any]:
    """What the worker's program makes of a command line."""
    words = command[command.index("start") + 1 :]
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return dict(group.commands["start"].make_context("start", words).params)


def test_the_worker_is_told_all_of_it(tmp_path: Path) -> None:
    pieces = ServingPieces.chosen(**ALL)
    told = understood(worker_command(tmp_path, tmp_path / "bundle", owner="local1x", pieces=pieces))
    assert (told["package"], told["model"]) == (Path("big.package").absolute(), None)
    assert (list(told["layers"]), told["most_layers"], told["name"]) == (["auto"], 8, "big")
    assert (tuple(told["peer"]), tuple(told["web_seed"])) == (ALL["peers"], ALL["web_seeds"])
    assert (told["near_holders"], told["seed"], told["upload_limit"]) == (True, "0.0.0.0:6881", "2M")


def test_what_was_not_said_is_not_told(tmp_path: Path) -> None:
    pieces = ServingPieces.chosen(**NOTHING | {"package": Path("big.package")})
    assert pieces is not None and len(pieces.options()) == 1
    told = understood(worker_command(tmp_path, tmp_path / "bundle", pieces=pieces))
    assert not any(told[name] for name in ("layers", "most_layers", "name", "peer", "web_seed", "seed"))
    assert (told["near_holders"], told["upload_limit"]) == (False, "0")


@pytest.mark.parametrize("name", [one for one in ALL if one != "package"])
def test_each_option_needs_a_package(name: str) -> None:
    with pytest.raises(UsageRefused, match="are for a model in pieces"):
        ServingPieces.chosen(**NOTHING | {name: ALL[name]})
    assert ServingPieces.chosen(**NOTHING) is None


def test_options_that_need_others_are_refused() -> None:
    for said, match in (({"layers": "0:8"}, "--most-layers is for"), ({"seed": ""}, "--upload-limit is for")):
        with pytest.raises(UsageRefused, match=match):
            ServingPieces.chosen(**ALL | said)
