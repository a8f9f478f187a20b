"""Makes .venv/: locked packages, llama.cpp built once and visibly, the project's own commands.

Runs under any Python 3.11+ and needs nothing but the standard library. An environment that is there already is
brought up to date in place; llama.cpp is built again only when the locked version changed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv"
LOCKS = ROOT / "requirements"
NATIVE = "llama-cpp-python"
CHECK = ROOT / "tools" / "setup" / "check_llama.py"
CHECK_TIMEOUT_S = 300
REPORT_EVERY_S = 5
TAIL_LINES = 25
# Ninja writes "[12/345] Building CXX object …", make writes "[ 12%] Building …".
STEP = re.compile(r"\[\s*(\d+/\d+|\d+%)\]\s*(.*)")
PACKAGE = re.compile(r"^\s*Collecting (\S+)")
# What joins a verbose Ninja's commands, and says nothing of them.
JOINTS = frozenset({":", "&&"})


class SetupFailed(Exception):
    """A step did not succeed; the message says which and what to do."""


def say(text: str) -> None:
    """Prints one line at once, also into a pipe."""
    print(text, flush=True)


def python() -> Path:
    """The environment's own interpreter."""
    return ENVIRONMENT / "bin" / "python"


def make_environment() -> None:
    """Creates .venv/, or replaces one whose interpreter no longer runs."""
    if python().exists():
        check = "import sys; sys.exit(sys.version_info < (3, 11))"
        if subprocess.run([str(python()), "-c", check], capture_output=True, check=False).returncode == 0:
            return
        say("setup: .venv/ does not run any more, making it anew")
        shutil.rmtree(ENVIRONMENT)
    say(f"setup: creating .venv/ with Python {sys.version.split()[0]}")
    venv.create(ENVIRONMENT, with_pip=True)


def last_step(log: Path) -> str:
    """The newest progress line of pip or of a build, shortened; empty where none is near the end.

    Args:
        log: what has been written so far.
    """
    with log.open("rb") as lines:
        lines.seek(max(0, log.stat().st_size - 16384))
        text = lines.read().decode("utf-8", "replace")
    whole, _, _ = text.rpartition("\n")
    for line in reversed(whole.splitlines()):
        if package := PACKAGE.search(line):
            return package[1]
        if step := STEP.search(line):
            count, what = step.groups()
            return f"{count} {what_of(what)}".rstrip()
    return ""


def what_of(command: str) -> str:
    """The file that a build's command is about: what it links, else what it ends with."""
    words = [word for word in command.split() if word not in JOINTS]
    if command.startswith(":") and "-o" in words[:-1]:
        words = words[: words.index("-o") + 2]
    return Path(words[-1]).name if words else ""


def run(title: str, arguments: Sequence[str], environment: Mapping[str, str], help_text: str) -> None:
    """Runs one step with its output in a log file, and a line every few seconds on the screen.

    Args:
        title: what the person reads.
        arguments: handed to the environment's Python.
        environment: of the child.
        help_text: what to do if it fails.

    Raises:
        SetupFailed: with the last lines of the log.
    """
    log = ENVIRONMENT / "setup.log"
    begun = time.monotonic()
    said = begun
    step = "working"
    with log.open("wb") as out:
        child = subprocess.Popen(
            [str(python()), *arguments], stdout=out, stderr=subprocess.STDOUT, env=dict(environment), cwd=ROOT
        )
        try:
            while child.poll() is None:
                time.sleep(0.2)
                if time.monotonic() - said >= REPORT_EVERY_S:
                    said = time.monotonic()
                    # A compiler's long lines push the newest step out of sight: it goes on all the same.
                    step = last_step(log) or step
                    say(f"setup: {title} · {said - begun:.0f} s · {step}")
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise
    if child.returncode != 0:
        lines = log.read_text("utf-8", "replace").splitlines()[-TAIL_LINES:]
        raise SetupFailed("\n".join([*lines, "", f"setup: {title} failed. {help_text}", f"Whole log: {log}"]))
    say(f"setup: {title} · done in {time.monotonic() - begun:.0f} s")


def split_lock(lock: Path, folder: Path) -> tuple[Path, Path]:
    """Divides a lock file into the ready-made packages and the one that is compiled.

    Args:
        lock: a pip requirements file with hashes.
        folder: where the two parts are written.

    Returns:
        Paths of (everything else, llama-cpp-python alone; empty where the lock has none).
    """
    ready: list[str] = []
    native: list[str] = []
    target = ready
    for line in lock.read_text("utf-8").splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            target = native if line.startswith(f"{NATIVE}==") else ready
        target.append(line)
    paths = folder / "ready.txt", folder / "native.txt"
    for path, lines in zip(paths, (ready, native), strict=True):
        path.write_text("\n".join([*lines, ""]), "utf-8")
    return paths


def installed_version() -> str:
    """The version of llama-cpp-python that the environment has, or an empty string."""
    ask = f"import importlib.metadata as m; print(m.version({NATIVE!r}))"
    answer = subprocess.run([str(python()), "-c", ask], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def require_compiler() -> None:
    """Says what to install before a build of minutes fails at its first file.

    Raises:
        SetupFailed: no C++ compiler on the PATH.
    """
    names = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    if not any(shutil.which(name) for name in names):
        raise SetupFailed(
            "setup: llama.cpp needs a C++ compiler, and there is none (looked for "
            + ", ".join(names)
            + ").\n"
            "  Debian, Ubuntu:  sudo apt install build-essential\n"
            "  Fedora:          sudo dnf install gcc-c++\n"
            "  macOS:           xcode-select --install\n"
            "Without serving, the client alone needs none: sh tools/setup/setup.sh client"
        )


def build_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What llama.cpp is built with, on top of what the person has set.

    The image part (llava) takes a third of the build and serves nothing here. The AMX part is left out because
    compilers up to GCC 12 drop half of the stores that set up its tiles: on a processor with AMX the first
    quantised product then ends in a general protection fault.
    """
    settings = {"CMAKE_ARGS": f"-DLLAVA_BUILD=OFF {environ.get('CMAKE_ARGS', '')}".strip()}
    for name in ("CFLAGS", "CXXFLAGS"):
        settings[name] = f"{environ.get(name, '')} -U__AMX_INT8__".strip()
    return settings


def llama_works() -> bool:
    """Whether the llama.cpp that is installed decodes the packaged model, in a process that may die of it."""
    try:
        tried = subprocess.run(
            [str(python()), str(CHECK)], capture_output=True, timeout=CHECK_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return tried.returncode == 0


def install_llama(locked: Path, pip: Sequence[str], plain: Mapping[str, str]) -> None:
    """Builds llama.cpp where it is missing, is of another version, or does not run on this processor.

    Args:
        locked: requirements file with the one package.
        pip: the command so far, before options and packages.
        plain: environment for pip.

    Raises:
        SetupFailed: no compiler, a failed build, or one whose result does not decode.
    """
    wanted = re.search(rf"^{NATIVE}==(\S+)", locked.read_text("utf-8"), re.M)
    if wanted and wanted[1] == installed_version() and llama_works():
        return
    require_compiler()
    say("setup: building llama.cpp: some minutes, only this once")
    building = {**plain, **build_settings(os.environ)}
    flags = ["--verbose", "--no-deps", "--no-build-isolation", "--force-reinstall", "-r", str(locked)]
    broken = "The lines above are the compiler's; an old compiler is the usual cause (GCC 9+, Clang 10+)."
    run("llama.cpp", [*pip, *flags], building, broken)
    if llama_works():
        return
    # pip keeps wheels that it built: one may be of another processor, or of an older recipe.
    say("setup: that llama.cpp does not run on this processor: building it anew")
    run("llama.cpp", [*pip, "--no-cache-dir", *flags], building, broken)
    if not llama_works():
        raise SetupFailed(
            "setup: llama.cpp was built, yet it cannot decode the model in the package.\n"
            f"To see why: {python()} {CHECK}\n"
            "Without serving, the client alone needs none: sh tools/setup/setup.sh client"
        )


def install(level: str) -> None:
    """Installs the locked packages of one level, then the project itself.

    Args:
        level: ``client``, ``worker`` or ``test``: a file requirements/<level>.lock.

    Raises:
        SetupFailed: a step failed.
    """
    plain = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"}
    plain["PATH"] = f"{ENVIRONMENT / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    pip = ["-m", "pip", "install", "--no-input", "--require-hashes"]
    network = "It needs the network once: check the connection and run it again."
    with tempfile.TemporaryDirectory() as folder:
        ready, native = split_lock(LOCKS / f"{level}.lock", Path(folder))
        run("build tools", [*pip, "-r", str(LOCKS / "build.lock")], plain, network)
        run("packages", [*pip, "--no-deps", "-r", str(ready)], plain, network)
        if NATIVE in native.read_text("utf-8"):
            install_llama(native, pip, plain)
    own = ["-m", "pip", "install", "--no-input", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    run("dllm", own, plain, "Please report the lines above.")


def main() -> int:
    """Command line: one level."""
    try:
        make_environment()
        install(sys.argv[1])
    except SetupFailed as failure:
        say(str(failure))
        return 1
    except KeyboardInterrupt:
        say("setup: interrupted; run it again to go on")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
