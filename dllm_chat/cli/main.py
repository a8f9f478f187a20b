"""Entry point of `dllm`. Says the version before anything heavy is imported."""

from __future__ import annotations

import sys

from dllm_chat.version import VERSION


def run() -> None:
    """The console script."""
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):
        sys.stdout.write(f"dllm {VERSION}\n")
        return
    from dllm_chat.cli.running import run_command

    sys.exit(run_command(arguments))


if __name__ == "__main__":
    run()
