"""The house is tidy: every rule holds in every file, and every rule catches its canary."""

from __future__ import annotations

import ast
import tomllib
from pathlib import PurePosixPath

import pytest

from tests.architecture.rules import RULES, Rule
from tests.architecture.sources import PACKAGES, ROOT, Source, project_sources

LONG_BODY = "\n".join(["    x = 1"] * 80)
# Rule -> (path, text) of a file that breaks it. Written in pieces where this file would break a rule itself.
CANARIES = {
    "unfinished": ("dllm_chat/a.py", "# TO" + "DO: later\n"),
    "stub": ("dllm_chat/a.py", "def f():\n    raise NotImplementedError('soon')\n"),
    "bare-except": ("dllm_chat/a.py", "try:\n    pass\nexcept:\n    pass\n"),
    "broad-except": (
        "dllm_chat/a.py",
        "try:\n    pass\nexcept (OSError, Exception):  # noqa: BLE001\n    pass\n",
    ),
    "unexplained-ignore": ("dllm_chat/a.py", "x: int = ''  # type: " + "ignore[assignment]\n"),
    "print": ("light_node/a.py", "print(1)\n"),
    "long-file": ("dllm_chat/a.py", "x = 1\n" * 401),
    "long-function": ("dllm_chat/a.py", f"def f():\n{LONG_BODY}\n"),
    "naive-time": ("light_node/a.py", "import datetime\ndatetime.datetime.utc" + "now()\n"),
    "unseeded-chance": ("tests/a.py", "import random\nrandom.Random().random()\n"),
    "asserted-input": ("dllm_chat/a.py", "def f(amount):\n    assert amount > 0\n"),
    "machine-path": ("docs/a.md", "see /wo" + "rk/main\n"),
    "registry-host": ("requirements/a.lock", "--index-url https://py" + "pi.org/simple\n"),
    "workshop-word": ("docs/a.md", "as in shared/fa" + "cts/style.md\n"),
}
INNOCENT = (
    (
        "broad-except",
        "dllm_chat/a.py",
        "try:\n    pass\nexcept Exception:  # a plug-in may raise anything\n    pass\n",
    ),
    ("broad-except", "dllm_chat/a.py", "try:\n    pass\nexcept BaseException:\n    x = 1\n    raise\n"),
    ("unexplained-ignore", "dllm_chat/a.py", "x = y  # type: " + "ignore[misc]  # upstream has no types\n"),
    ("print", "dllm_chat/cli/output.py", "print(1)\n"),
    ("unseeded-chance", "tests/a.py", "import random\nrandom.Random(7).random()\n"),
    ("asserted-input", "dllm_chat/a.py", "def f(self):\n    assert self.open\n"),
    ("machine-path", "docs/a.md", "https://example.net/wo" + "rk/ and ~/wo" + "rk/\n"),
)
# Modules that are started by name rather than imported.
STARTED = {"__init__", "__main__", "conftest"}


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    return project_sources()


def findings(rule: Rule, source: Source) -> list[str]:
    if not rule.applies(source):
        return []
    return [f"{source.path}:{line}: {what}; instead: {rule.instead}" for line, what in rule.check(source)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_file_keeps_the_rule(rule: Rule, sources: list[Source]) -> None:
    broken = [line for source in sources for line in findings(rule, source)]
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_rule_catches_its_canary(rule: Rule) -> None:
    path, text = CANARIES[rule.name]
    assert findings(rule, Source(PurePosixPath(path), text))


@pytest.mark.parametrize(("name", "path", "text"), INNOCENT)
def test_the_rule_spares_what_is_allowed(name: str, path: str, text: str) -> None:
    rule = next(rule for rule in RULES if rule.name == name)
    assert not findings(rule, Source(PurePosixPath(path), text))


def module_name(source: Source) -> str:
    parts = source.path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def mentioned(source: Source) -> set[str]:
    """Every module that a file imports, or names in a string (as for ``python -m``)."""
    package = source.path.parent.parts
    names: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            kept = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*kept, *([node.module] if node.module else [])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            names.add(node.value.partition(":")[0])
    return names


def dead_modules(sources: list[Source]) -> list[str]:
    """Modules that ship and that nothing which ships, measures or trains reaches by name."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"].values()
    live = {script.partition(":")[0] for script in scripts}
    for source in sources:
        if source.is_python and not source.is_test:
            live |= mentioned(source) - {module_name(source)}
    shipped = [source for source in sources if source.path.parts[0] in PACKAGES and source.is_python]
    return [str(s.path) for s in shipped if s.path.stem not in STARTED and module_name(s) not in live]


def test_no_module_is_dead(sources: list[Source]) -> None:
    dead = dead_modules(sources)
    assert not dead, "nothing imports these, use them or remove them:\n" + "\n".join(dead)


def test_a_dead_module_is_found() -> None:
    living = Source(PurePosixPath("dllm_chat/cli/main.py"), "from dllm_chat import used\n")
    used = Source(PurePosixPath("dllm_chat/used.py"), "")
    dead = Source(PurePosixPath("dllm_chat/dead.py"), "")
    assert dead_modules([living, used, dead]) == ["dllm_chat/dead.py"]


def test_every_rule_has_one_canary() -> None:
    assert {rule.name for rule in RULES} == set(CANARIES)
