"""``python -m benchmarks [NAME …] [--json] [--list]``."""

from __future__ import annotations

import argparse
import sys

from benchmarks.runner import as_json, as_text, benchmarks, run_all


def main(arguments: list[str] | None = None) -> int:
    """Prints each result as it is known: 0, or 2 for a name that is not there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run; all by default")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--list", action="store_true", help="name them and stop")
    chosen = parser.parse_args(arguments)
    if chosen.list:
        print("\n".join(benchmarks()))
        return 0
    unknown = sorted(set(chosen.names) - set(benchmarks()))
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(benchmarks())}", file=sys.stderr)
        return 2
    for result in run_all(chosen.names):
        print(as_json(result) if chosen.json else as_text(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
