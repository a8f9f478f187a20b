"""What a person may name as a server, and where its key may lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from dllm_protocol.errors import UsageRefused
from local_worker.remote_engine.options import RemoteServer, checked_url, key_from_file, remote_server


def test_a_servers_address_loses_its_last_slash() -> None:
    assert checked_url("https://big.example:8443/v1/") == "https://big.example:8443/v1"
    assert checked_url("http://[::1]:8000/v1") == "http://[::1]:8000/v1"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "127.0.0.1:8000",
            "ftp://x/v1",
            "http://",
            "http://x:99999/v1",
            "http://x/v 1",
            "http://x/\x1b[2J",
        ),
        *("http://user:secret@x/v1", "http://x/v1?key=secret", "http://x/v1#a", "http://x/" + "a" * 600),
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageRefused) as caught:
        checked_url(url)
    assert caught.value.message.isprintable() and "secret" not in caught.value.message


def test_a_key_comes_out_of_a_private_file_and_shows_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-secret\n")
    file.chmod(0o600)
    server = remote_server("openai", "http://x/v1", file, "big")
    assert server is not None and server.key == "sk-secret"
    assert "sk-secret" not in repr(server)
    file.chmod(0o644)
    with pytest.raises(UsageRefused, match="mode 644") as caught:
        key_from_file(file)
    assert caught.value.hint == f"chmod 600 {file}"


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"sk-\xc3\xa9", b"a\nb", b"x" * 5000])
def test_what_is_no_key_is_refused_and_not_said(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(UsageRefused, match="holds no key") as caught:
        key_from_file(file)
    assert "words" not in str(caught.value)
    with pytest.raises(UsageRefused, match="cannot be read"):
        key_from_file(tmp_path / "missing")


def test_options_belong_to_their_backend(tmp_path: Path) -> None:
    assert remote_server("llama.cpp", None, None, None) is None
    assert remote_server("openai", "http://x/v1", None, None) == RemoteServer("http://x/v1")
    for backend, url, file, model in (
        ("openai", None, None, None),
        ("ollama", "http://x/v1", None, None),
        ("llama.cpp", "http://x/v1", None, None),
        ("llama.cpp", None, tmp_path, None),
        ("llama.cpp", None, None, "big"),
        ("openai", "http://x/v1", None, ""),
    ):
        with pytest.raises(UsageRefused):
            remote_server(backend, url, file, model)
