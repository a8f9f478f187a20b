"""The walls of the house: who may import whom, statically and in a running process."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.sources import PACKAGES, ROOT, project_sources

LINTER = Path(sys.executable).with_name("lint-imports")
PURE_ROOMS = (("dllm_protocol",), ("full_node", "state_machine"))
IMPURE = {"asyncio", "socket", "time", "datetime", "random", "secrets", "uuid", "os", "sqlite3"}
# Contract -> (file, the import that breaks it).
VIOLATIONS = {
    "layers": ("light_node/bad.py", "import local_worker"),
    "wire": ("dllm_chat/bad.py", "def start():\n    import full_node"),
    "pure": ("dllm_protocol/bad.py", "from time import monotonic"),
    "textual": ("dllm_chat/cli/bad.py", "import dllm_chat.tui.bad"),
    "llama": ("local_worker/bad.py", "import llama_cpp"),
    "libtorrent": ("local_worker/swarm/bad.py", "def start():\n    import libtorrent"),
}


def contracts() -> dict[str, dict[str, object]]:
    """The declared contracts by id."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    return {contract["id"]: contract for contract in declared}


def lint(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(LINTER), "--no-cache", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded once it ran the code."""
    show = "\nimport sys as _sys\n_sys.stderr.write('\\n@'.join(['', *_sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code + show], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return {line[1:] for line in done.stderr.splitlines() if line.startswith("@")}


def test_every_import_contract_holds() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("contract", sorted(VIOLATIONS))
def test_a_planted_import_breaks_its_contract(contract: str, tmp_path: Path) -> None:
    rooms = {
        *PACKAGES,
        "full_node.state_machine",
        "local_worker.engine.llama",
        "local_worker.engine",
        "local_worker.swarm.swarm",
        "local_worker.swarm",
        "dllm_chat.tui.bad",
        "dllm_chat.tui",
    }
    rooms |= {str(room) for room in contracts()["textual"]["source_modules"]}  # type: ignore[attr-defined]  # TOML has no types
    for room in sorted(rooms):
        folder = tmp_path / room.replace(".", "/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
    (tmp_path / "dllm_chat/tui/bad/__init__.py").write_text("import textual\n")
    (tmp_path / "local_worker/engine/llama/__init__.py").write_text("import llama_cpp\n")
    (tmp_path / "local_worker/swarm/swarm/__init__.py").write_text("import libtorrent\n")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text("utf-8"))
    assert lint(tmp_path, "--contract", contract).returncode == 0

    path, text = VIOLATIONS[contract]
    (tmp_path / path).write_text(text + "\n")
    assert "BROKEN" in lint(tmp_path, "--contract", contract).stdout


def test_every_contract_has_a_planted_violation() -> None:
    assert set(contracts()) == set(VIOLATIONS)


def test_the_textual_contract_names_every_room_of_the_client_but_the_tui() -> None:
    entries = sorted((ROOT / "dllm_chat").iterdir())
    rooms = {entry.stem for entry in entries if entry.suffix == ".py" or (entry / "__init__.py").exists()}
    named = contracts()["textual"]["source_modules"]
    assert isinstance(named, list)
    missing = {f"dllm_chat.{room}" for room in rooms - {"__init__", "tui"}} - set(named)
    assert not missing, f"add to the contract 'textual' in pyproject.toml: {sorted(missing)}"


def test_pure_rooms_import_no_clock_no_chance_no_disk_and_no_network() -> None:
    broken = []
    for source in project_sources():
        if source.is_python and any(source.path.parts[: len(room)] == room for room in PURE_ROOMS):
            for node in ast.walk(source.tree):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                broken += [f"{source.path}: {name}" for name in names if name.partition(".")[0] in IMPURE]
    assert not broken, "hand these in from an edge as arguments: " + ", ".join(broken)


def test_the_version_is_answered_before_typer_and_textual_are_loaded() -> None:
    loaded = loaded_after(
        "import sys\nsys.argv = ['dllm', '--version']\nfrom dllm_chat.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    assert "dllm_chat.version" in loaded
    assert not loaded & {"typer", "click", "textual", "rich", "asyncio", "importlib.metadata"}


@pytest.mark.parametrize(
    "room", ["dllm_chat.wallet", "dllm_chat.dispatch", "dllm_chat.cli", "dllm_chat.cli.main"]
)
def test_a_room_below_the_tui_loads_no_textual(room: str) -> None:
    assert "textual" not in loaded_after(f"import {room}")


@pytest.mark.parametrize("package", ["light_node", "dllm_chat.dispatch", "local_worker"])
def test_nothing_loads_llama_or_libtorrent_outside_their_processes(package: str) -> None:
    # Of the engine, the worker's service holds only the near end: the client and the starter of the process.
    code = (
        "import importlib, pkgutil\n"
        f"package = importlib.import_module('{package}')\n"
        "near = ('.client', '.process')\n"
        "for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "    far = found.name.startswith('local_worker.engine.') and not found.name.endswith(near)\n"
        "    if not far and not found.name.endswith('__main__'):\n"
        "        importlib.import_module(found.name)"
    )
    assert not {"llama_cpp", "libtorrent"} & loaded_after(code)
