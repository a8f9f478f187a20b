"""Programs that behave as a worker does: they hold a home's lock and write its status, and compute nothing."""

from __future__ import annotations

import sys
from pathlib import Path

# Says each of its words as its state, half a second apart; "fail" and "end" end it, "hold" waits for the signal.
PROGRAM = """
import fcntl, json, os, signal, sys, time
home, *words = sys.argv[1:]
def stop(*_):
    say("stopped")
    sys.exit(0)
def say(state, problem=""):
    new = os.path.join(home, ".status.new")
    with open(new, "w") as file:
        json.dump({"pid": os.getpid(), "state": state, "problem": problem}, file)
    os.replace(new, os.path.join(home, "status.json"))
signal.signal(signal.SIGTERM, stop)
lock = open(os.path.join(home, "lock"), "w")
fcntl.flock(lock, fcntl.LOCK_EX)
for word in words:
    if word == "hold":
        time.sleep(60)
    elif word == "fail":
        say("failed", "the model is damaged")
        print("the model is damaged", flush=True)
        print("fetch it again", flush=True)
        sys.exit(8)
    elif word == "crash":
        print("OSError: no such device", flush=True)
        sys.exit(1)
    elif word == "end":
        stop()
    else:
        say(word)
        time.sleep(0.5)
"""


def worker_program(home: Path, *words: str) -> list[str]:
    """Command line of a worker of that home which goes through these states."""
    return [sys.executable, "-c", PROGRAM, str(home), *words]
