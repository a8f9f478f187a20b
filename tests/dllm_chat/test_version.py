"""The version constant and the one that the package is built with are the same."""

import tomllib

from dllm_chat.version import VERSION
from tests.conftest import ROOT


def test_the_constant_is_the_version_that_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == VERSION


def test_the_changelog_knows_this_version() -> None:
    assert f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
