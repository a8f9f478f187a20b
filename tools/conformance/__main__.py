"""``python -m tools.conformance [PATH …]``: runs what is marked as conformance and prints `family passed/total`.

Families are named where they are tested, by ``@pytest.mark.conformance("family")``; so nothing is tested twice and
nothing can be counted that no test checks. Exit status 1 when anything failed, or when nothing ran at all.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

import pytest

from tools.conformance.families import Families
from tools.conformance.go_verifier import GoVerifierMissing, fetch

ROOT = Path(__file__).resolve().parents[2]
MARK = "conformance"


def marked_files(folder: Path) -> list[Path]:
    """Test files that mention the mark: the only ones worth importing."""
    return [path for path in sorted(folder.rglob("test_*.py")) if f"mark.{MARK}(" in path.read_text("utf-8")]


def main(arguments: list[str]) -> int:
    """Run and report.

    Args:
        arguments: files or folders of tests; all of the project's by default.
    """
    given = [Path(one) for one in arguments] or [ROOT / "tests"]
    paths = [file for one in given for file in (marked_files(one) if one.is_dir() else [one])]
    if not paths:  # given none, pytest would look everywhere
        print(f"no test under {', '.join(map(str, given))} is marked as conformance", file=sys.stderr)
        return 1
    families, said = Families(MARK), io.StringIO()
    os.environ.pop("DLLM_FORBID_SKIPS", None)  # what is absent is reported by family instead
    if not arguments:
        with contextlib.suppress(GoVerifierMissing):  # its family then says why it is absent
            fetch()
    options = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-m", MARK, "-n", "0", "-rf"]
    options += ["-p", "no:cacheprovider", "--continue-on-collection-errors"]
    with contextlib.redirect_stdout(said):
        status = pytest.main([*options, *map(str, paths)], plugins=[families])
    sound = status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and families.counted
    if not sound:
        print(said.getvalue(), file=sys.stderr)
    print("\n".join(families.lines()))
    return 0 if sound and not families.failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
