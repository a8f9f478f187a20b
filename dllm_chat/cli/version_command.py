"""`dllm version`."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from dllm_chat.cli.command import command, single
from dllm_chat.cli.output import Report, fields
from dllm_chat.version import VERSION

app = single()
PARTS = ("typer", "textual", "pynacl", "cryptography", "websockets", "llama-cpp-python")


@command(app, "version")
def version() -> Report:
    """Versions of dllm, its formats, Python and the libraries that matter.

    \b
      dllm version
      dllm version --json
    """
    from dllm_protocol.bundle import BUNDLE_VERSION
    from dllm_protocol.receipt import RECEIPT_VERSION
    from dllm_protocol.relay import RELAY_VERSION
    from dllm_protocol.transaction import TRANSACTION_VERSION

    formats = {"transaction": TRANSACTION_VERSION, "receipt": RECEIPT_VERSION, "bundle": BUNDLE_VERSION}
    formats |= {"relay's message": RELAY_VERSION}
    parts = {name: _installed(name) for name in PARTS}
    data = {
        "version": VERSION,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "formats": formats,
        "parts": parts,
    }
    shown = {"dllm": VERSION, "python": data["python"], "platform": data["platform"]}
    shown |= {f"format of a {name}": str(number) for name, number in formats.items()}
    shown |= {name: found or "not installed" for name, found in parts.items()}
    return Report(data, fields(shown))


def _installed(name: str) -> str:
    """Version of a distribution; empty where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
