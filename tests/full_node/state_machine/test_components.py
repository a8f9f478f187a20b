"""The rooms of the state machine: handlers keep their beats, and components meet through views and changes only."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator

import pytest

from full_node import state_machine
from full_node.state_machine.actions import HANDLERS
from tests.conftest import ROOT

FOLDER = ROOT / "full_node" / "state_machine"
ROOMS = ("accounts", "models", "providers", "books", "sessions", "reputation", "staking")
BEATS = ["CHECK", "CHARGE", "CHANGE", "EVENT"]


def imports_of_rooms() -> Iterator[tuple[str, str]]:
    """(file, imported module) for every file inside a room."""
    for room in ROOMS:
        for path in sorted((FOLDER / room).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module:
                    yield f"{room}/{path.name}", node.module
                    for alias in node.names:
                        yield f"{room}/{path.name}", f"{node.module}.{alias.name}"


def test_no_component_imports_a_handler() -> None:
    assert not [(path, module) for path, module in imports_of_rooms() if "handler" in module]


def test_views_write_nothing_and_import_no_changes() -> None:
    wrong = [pair for pair in imports_of_rooms() if pair[0].endswith("view.py") and "changes" in pair[1]]
    assert not wrong
    for room in ROOMS:
        view = FOLDER / room / "view.py"
        if view.exists():
            assert not re.search(r"\.(write|put|delete|merge)\(", view.read_text("utf-8")), view


def test_components_know_nothing_of_the_application() -> None:
    doors = {
        f"{state_machine.__name__}.{name}" for name in ("application", "admission", "actions", "genesis")
    }
    assert not [(path, module) for path, module in imports_of_rooms() if module in doors]


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=lambda handler: handler.__name__)
def test_a_handler_walks_the_beats_in_order(handler: Callable[..., None]) -> None:
    source = inspect.getsource(handler)
    beats = re.findall(r"^    # ([A-Z]+)$", source, re.MULTILINE)
    assert {"CHECK", "CHANGE", "EVENT"} <= set(beats)
    assert beats == [beat for beat in BEATS if beat in beats]
