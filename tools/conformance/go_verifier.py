"""The Go implementation of ICS-23 as a judge of our proofs: built from `ics23_go/` here, where Go is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parent / "ics23_go"
GO_WAIT_S = 180.0
JUDGE_WAIT_S = 120.0


class GoVerifierMissing(Exception):
    """Go is not here, or its module cosmos/ics23 can be neither found nor fetched."""


def fetch() -> None:
    """Bring the module into Go's own cache, once; `build` asks no network, so that tests never depend on it.

    Raises:
        GoVerifierMissing: there is no Go, or the module could not be fetched.
    """
    _go("mod", "download", environment={})


def build(folder: Path) -> Path:
    """Compile the judge into a folder and return the program.

    Raises:
        GoVerifierMissing: there is no Go, or `fetch` never succeeded here.
    """
    program = folder / "ics23_go"
    _go("build", "-buildvcs=false", "-o", str(program), ".", environment={"GOPROXY": "off"})
    return program


def _go(*arguments: str, environment: dict[str, str]) -> None:
    go = shutil.which("go")
    if go is None:
        raise GoVerifierMissing("there is no `go` on PATH")
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", **environment}
    try:
        done = subprocess.run(
            [go, *arguments], cwd=SOURCE, env={**os.environ, **settings}, capture_output=True, text=True,
            timeout=GO_WAIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise GoVerifierMissing(f"`go {arguments[0]}` took over {GO_WAIT_S:g} s") from error
    if done.returncode != 0:
        raise GoVerifierMissing(done.stderr.strip()[-2000:])


@cache
def is_go_verifier_buildable() -> bool:
    """Whether `build` succeeds on this machine; tried once."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            build(Path(folder))
        except GoVerifierMissing:
            return False
    return True


def judge(program: Path, cases: Sequence[dict[str, str | None]]) -> list[bool]:
    """What it says to each case: whether the proof shows what is claimed.

    Args:
        program: from `build`.
        cases: root, key, value (None asks for absence) and proof, in hex.
    """
    asked = json.dumps([{name: case[name] for name in ("root", "key", "value", "proof")} for case in cases])
    done = subprocess.run(
        [program], input=asked, capture_output=True, text=True, timeout=JUDGE_WAIT_S, check=True
    )
    verdicts: list[bool] = json.loads(done.stdout)
    return verdicts
