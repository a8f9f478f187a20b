"""The `cometbft` program: where it is on this machine, and whether it is of the line that we speak.

It is looked for, in this order, at the path that the caller names, at the path in ``DLLM_COMETBFT``, beside the
running Python (where ``make cometbft`` puts it), and on ``PATH``. A path that somebody named is never passed over
for another.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from dllm_protocol.errors import UsageRefused

COMETBFT_VERSION = "0.38.25"
"""The release that ``make cometbft`` installs; tools/setup/cometbft.sh reads this line."""
COMETBFT_LINE = (0, 38)
OLDEST_PATCH = 21
"""From this release on, commits looked up by index must match the validator's address as well."""
RELEASES_URL = f"https://github.com/cometbft/cometbft/releases/tag/v{COMETBFT_VERSION}"
PROGRAM = "cometbft"
NAMED_BY = "DLLM_COMETBFT"
_VERSION = re.compile(r"v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})\b")
_ANSWER_S = 30.0
_HINT = (
    f"`make cometbft` installs it (needs Go); or take the official release {RELEASES_URL}, "
    f"put the program `{PROGRAM}` on PATH or name it in {NAMED_BY}"
)


class CometBftMissing(UsageRefused):
    """The program is not where it was looked for."""

    code = "E_NO_COMETBFT"


class CometBftUnfit(UsageRefused):
    """The program is there and cannot be used: another version, or it does not run."""

    code = "E_COMETBFT_VERSION"


def find_cometbft(named: Path | None = None) -> Path:
    """The program's path. Raises CometBftMissing.

    Args:
        named: where the person says that it is; nothing else is tried then.
    """
    if named is None and (from_environment := os.environ.get(NAMED_BY)):
        named = Path(from_environment)
    if named is not None:
        if _runs(named):
            return named.absolute()
        raise CometBftMissing(f"{named} is not a program that this user may run", hint=_HINT)
    beside_python = Path(sys.prefix) / "bin" / PROGRAM
    if _runs(beside_python):
        return beside_python
    if on_path := shutil.which(PROGRAM):
        return Path(on_path).absolute()
    raise CometBftMissing(f"`{PROGRAM}` is neither {beside_python} nor on PATH", hint=_HINT)


def is_cometbft_here() -> bool:
    """Whether `find_cometbft` finds one."""
    try:
        find_cometbft()
    except CometBftMissing:
        return False
    return True


def require_our_line(program: Path) -> str:
    """Asks the program for its version and returns it. Raises CometBftUnfit unless it is of our line."""
    try:
        done = subprocess.run(  # noqa: S603 - the person's own program, no shell
            [program, "version"], capture_output=True, text=True, timeout=_ANSWER_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CometBftUnfit(f"{program} does not run: {error}", hint=_HINT) from error
    said = done.stdout.strip()
    match = _VERSION.match(said)
    if done.returncode != 0 or match is None:
        raise CometBftUnfit(
            f"{program} does not say its version: {(said or done.stderr)[:200]!r}", hint=_HINT
        )
    major, minor, patch = (int(part) for part in match.groups())
    if (major, minor) != COMETBFT_LINE or patch < OLDEST_PATCH:
        wanted = ".".join(str(part) for part in COMETBFT_LINE)
        raise CometBftUnfit(
            f"{program} is version {said}, wanted is {wanted}.x from {wanted}.{OLDEST_PATCH} on", hint=_HINT
        )
    return said


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
