"""The validator's key file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dllm_protocol.signing import verify
from full_node.keys import KeyFileRefused, create_key, load_key


def test_a_key_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "consensus_key.json"
    made = create_key(path)
    again = load_key(path)
    assert verify(made.public_key, b"message", again.sign(b"message"))
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyFileRefused, match="exists already"):
        create_key(path)


def test_damaged_and_open_files_are_refused_without_showing_the_secret(tmp_path: Path) -> None:
    path = tmp_path / "consensus_key.json"
    create_key(path)
    document = json.loads(path.read_text())
    secret = document["priv_key"]["value"]
    path.chmod(0o640)
    with pytest.raises(KeyFileRefused, match="mode 0640"):
        load_key(path)
    path.chmod(0o600)
    other = json.loads(json.dumps(document))
    other["priv_key"]["value"] = "A" * 44 + secret[44:]
    for content, words in (
        ("{", "not a validator key file"),
        (json.dumps({**document, "more": 1}), "not a validator key file"),
        (json.dumps({**document, "priv_key": {"type": "x", "value": secret}}), "no Ed25519 key"),
        (json.dumps(other), "another public key"),
    ):
        path.write_text(content)
        with pytest.raises(KeyFileRefused, match=words) as refused:
            load_key(path)
        assert secret[:40] not in str(refused.value)
        assert refused.value.__cause__ is None
    path.unlink()
    with pytest.raises(KeyFileRefused, match="cannot be read"):
        load_key(path)
