"""What is imported, and what is not: a version costs nothing, a wallet list no network, nothing the TUI."""

import subprocess
import sys
from pathlib import Path

import pytest

from dllm_chat.version import VERSION

SCRIPT = """
import sys
sys.argv = ["dllm", *{arguments!r}]
from dllm_chat.cli.main import run
code = 0
try:
    run()
except SystemExit as ended:
    code = ended.code or 0
loaded = [name for name in {suspects!r} if any(m == name or m.startswith(name + ".") for m in sys.modules)]
sys.stderr.write("LOADED " + ",".join(loaded))
sys.exit(code)
"""


def loaded(arguments: list[str], suspects: list[str]) -> tuple[str, str]:
    """Stdout, and which of the modules were imported."""
    script = SCRIPT.format(arguments=arguments, suspects=suspects)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return ran.stdout, ran.stderr.rpartition("LOADED ")[2]


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_is_said_before_anything_is_imported(tmp_home: Path, flag: str) -> None:
    heavy = ["typer", "rich", "textual", "dllm_protocol", "asyncio", "json"]
    assert loaded([flag], heavy) == (f"dllm {VERSION}\n", "")
    assert list(tmp_home.iterdir()) == []


def test_a_wallet_list_needs_no_network_code(tmp_home: Path) -> None:
    heavy = [
        "light_node",
        "textual",
        "rich",
        "aiohttp",
        "websockets",
        "bip_utils",
        "keyring",
        "numpy",
        "llama_cpp",
    ]
    assert tmp_home.is_dir()
    assert loaded(["wallet", "list", "--json"], heavy)[1] == ""


def test_help_imports_no_command(tmp_home: Path) -> None:
    commands = [
        f"dllm_chat.cli.{name}" for name in ("ask", "wallet", "session", "receipt", "doctor", "worker")
    ]
    out, found = loaded(["--help"], [*commands, "rich", "dllm_chat.wallet", "light_node"])
    assert tmp_home.is_dir()
    assert "Commands:" in out
    assert found == ""


def test_no_command_imports_the_tui(tmp_home: Path) -> None:
    script = """
import importlib, pkgutil, sys, dllm_chat.cli
for module in pkgutil.iter_modules(dllm_chat.cli.__path__):
    importlib.import_module("dllm_chat.cli." + module.name)
assert len([name for name in sys.modules if name.startswith("dllm_chat.cli.")]) > 20
sys.exit("textual" in sys.modules)
"""
    assert tmp_home.is_dir()
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
