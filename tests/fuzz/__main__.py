"""``make fuzz``: every room for FUZZ_SECONDS (60), coverage-guided; names of rooms narrow it.

What was learnt stays in build/fuzz/corpus; inputs that broke something lie in build/fuzz/findings.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.table import rooms

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "fuzz"
MEMORY_MB = 2048
INPUT_SECONDS = 20


def run_room(room: str, seconds: int) -> int:
    """One child process, because libFuzzer ends its own; returns its exit code."""
    corpus, findings = WORK / "corpus" / room, WORK / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.coverage", room, f"-max_total_time={seconds}"]
    command += [
        f"-artifact_prefix={findings}/{room}-",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-timeout={INPUT_SECONDS}",
    ]
    command += ["-max_len=131072", "-print_final_stats=1", "-verbosity=1", str(corpus)]
    with (WORK / f"{room}.log").open("wb") as log:
        return subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False).returncode


def inputs_run(room: str) -> str:
    """How many inputs libFuzzer counted."""
    words = (WORK / f"{room}.log").read_text("utf-8", "replace").split("number_of_executed_units:")
    return words[1].split()[0] if len(words) > 1 else "?"


def main() -> int:
    """Runs the rooms; 0 where nothing was found."""
    if find_spec("atheris") is None:
        print("atheris is not installed: make fuzz installs it", file=sys.stderr)
        return 2
    seconds = int(os.environ.get("FUZZ_SECONDS", "60"))
    known = rooms()
    wanted = sys.argv[1:] or sorted(known)
    failed = 0
    for room in wanted:
        code = run_room(room, seconds)
        failed += code != 0
        verdict = "nothing found" if code == 0 else f"FOUND something, see build/fuzz/{room}.log"
        print(f"{room}: {len(known[room])} decoders, {inputs_run(room)} inputs, {verdict}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
