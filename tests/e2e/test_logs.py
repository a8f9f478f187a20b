"""What real processes log: lines of one form, and never a secret or a person's words."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

from tests.e2e.machine import Machine, ask

PROMPT = "Tell me about zebrafinch migrations in words nobody logs"


def key_files(machine: Machine) -> list[Path]:
    """Files of the embedded network that hold keys or tokens."""
    return [
        path
        for path in machine.home.rglob("*.json")
        if path.name in {"keys.json", "consensus_key.json", "supervisor.json"} or "wallet" in path.name
    ]


def strings_in(document: Any) -> set[str]:
    """All text in a JSON document."""
    if isinstance(document, dict):
        return {text for value in document.values() for text in strings_in(value)}
    if isinstance(document, list):
        return {text for value in document for text in strings_in(value)}
    return {document} if isinstance(document, str) else set()


def secrets_of(machine: Machine) -> set[str]:
    """Seeds, private keys and tokens, as they are written in files, in hex and in base64."""
    found: set[str] = set()
    for path in key_files(machine):
        document = json.loads(path.read_bytes())
        for name in ("address", "pub_key", "public_key", "checksum", "format", "fingerprint", "chain_id"):
            document.pop(name, None)
        found |= {text for text in strings_in(document) if len(text) >= 32}
    for text in list(found):
        if len(text) % 2 == 0 and all(one in "0123456789abcdef" for one in text):
            found.add(base64.b64encode(bytes.fromhex(text)).decode())
    return found


async def test_no_secret_and_no_prompt_is_logged_and_every_line_has_one_form(machine: Machine) -> None:
    async with machine.terminal() as service:
        heard = await ask(service, PROMPT)
        assert heard.text
        secrets = secrets_of(machine)
        logs = [path for path in machine.home.rglob("*") if path.is_file() and ".log" in path.name]
        assert len(secrets) >= 4 and {"node.log", "worker.log", "supervisor.log"} <= {
            path.name for path in logs
        }
        for path in logs:
            text = path.read_text("utf-8", "replace")
            assert "zebrafinch" not in text and heard.text[:40] not in text, path
            assert not [secret for secret in secrets if secret in text], path
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    lines = 0
    for path in logs:
        if path.name in {"node.log", "worker.log", "supervisor.log"}:
            for line in path.read_text("utf-8").splitlines():
                entry = json.loads(line)
                assert set(entry) - {"traceback"} == {"time", "level", "logger", "message"}, line
                assert entry["time"].endswith("Z") and entry["level"] in ("debug", "info", "warning", "error")
                lines += 1
    assert lines > 5
