from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import ctypes, resource
from dllm_chat.wallet.hardening import harden_process
done = harden_process()
assert done.no_core_dumps
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
PR_GET_DUMPABLE = 3
print(done.not_traceable, ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0))
"""


def test_a_hardened_process_dumps_nothing_and_cannot_be_traced() -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs Linux")
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True, text=True)
    assert done.stdout == "True 0\n"


def test_the_wallet_imports_no_slow_library_until_it_needs_one() -> None:
    script = (
        "import sys, dllm_chat.wallet.manager, dllm_chat.wallet.chat_key, dllm_chat.wallet.play_wallet\n"
        "print([name for name in ('bip_utils', 'keyring', 'textual', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert done.stdout == "[]\n"
