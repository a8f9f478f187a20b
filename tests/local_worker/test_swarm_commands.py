"""``dllm-worker model fetch`` and ``seed`` from the outside."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from local_worker.model_files import packaged_model
from local_worker.packages.package import MANIFEST_FILE
from tests.local_worker.swarm.rig import WebServer, held, serving
from tests.local_worker.test_cli import data, failure

PROGRAM = [sys.executable, "-m", "local_worker.package_commands"]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands") / "guide.package"
    data("model", "pack", str(packaged_model()), "--out", str(folder))
    return folder


@contextmanager
def seeding(*words: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """A process that seeds, and what it says of itself."""
    command = [*PROGRAM, "seed", *words, "--listen", "127.0.0.1:0", "--json"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())["data"]
        finally:
            process.kill()


def test_a_package_goes_from_one_program_to_the_other(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with seeding(str(package), "--upload-limit", "50M") as (process, told):
        assert (told["state"], told["piece_count"], told["packages"]) == ("seeding", 8, [str(package)])
        words = ("--layers", "1:3", "--peer", told["listen"], "--out", str(out))
        done = data("model", "fetch", str(package / MANIFEST_FILE), *words)
        assert (done["package"], done["first_layer"], done["end_layer"]) == (str(out), 1, 3)
        assert (done["name"], done["piece_count"], done["kept_bytes"]) == ("guide", 4, 0)
        assert len(held(out)) == 4
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None and b"bytes of pieces" in process.stderr.read()
    chunk = tmp_path / "chunk.gguf"
    data("model", "assemble", str(out), "--layers", "1:3", "--out", str(chunk))
    data("model", "assemble", str(package), "--layers", "1:3", "--out", str(tmp_path / "same.gguf"))
    assert chunk.read_bytes() == (tmp_path / "same.gguf").read_bytes()


def test_a_seeder_with_a_lifeline_ends_with_it(package: Path) -> None:
    with seeding(str(package), "--lifeline") as (process, _):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


def test_all_layers_come_from_a_web_seed(package: Path, tmp_path: Path) -> None:
    with serving(WebServer(package)) as server:
        done = data("model", "fetch", str(package), "--web-seed", server.url, "--out", str(tmp_path / "out"))
    assert done["piece_count"] == 8 and done["refused"] == {}
    assert data("model", "verify", str(tmp_path / "out"))["verified"] is True


@pytest.mark.parametrize(
    ("words", "exit_code", "code"),
    [
        (("fetch", "PACKAGE", "--out", "OUT"), 2, "E_USAGE"),
        (("fetch", "nowhere", "--out", "OUT", "--peer", "127.0.0.1:1"), 6, "E_PACKAGE"),
        (("fetch", "pyproject.toml", "--out", "OUT", "--peer", "127.0.0.1:1"), 8, "E_MALFORMED"),
        (("fetch", "PACKAGE", "--out", "OUT", "--peer", "nowhere"), 2, "E_USAGE"),
        (("fetch", "PACKAGE", "--out", "OUT", "--peer", "127.0.0.1:1", "--layers", "1:9"), 2, "E_LAYERS"),
        (("fetch", "PACKAGE", "--out", "OUT", "--peer", "127.0.0.1:1", "--upload-limit", "1"), 2, "E_USAGE"),
        (("fetch", "PACKAGE", "--out", "OUT", "--peer", "127.0.0.1:1", "--idle", "1"), 4, "E_FETCH_STALLED"),
        (
            ("fetch", "PACKAGE", "--out", "OUT", "--peer", "127.0.0.1:1", "--manifest-hash", "00" * 32),
            8,
            "E_VERIFY",
        ),
        (("fetch", "PACKAGE", "--out", "OUT", "--web-seed", "ftp://host/p"), 2, "E_USAGE"),
        (("seed", "OUT", "--listen", "127.0.0.1:0"), 6, "E_PACKAGE"),
        (("seed", "PACKAGE", "--listen", "192.0.2.1:1"), 2, "E_LISTEN"),
    ],
)
def test_what_goes_wrong_has_a_name(
    package: Path, tmp_path: Path, words: tuple[str, ...], exit_code: int, code: str
) -> None:
    names = {"PACKAGE": str(package), "OUT": str(tmp_path / "out")}
    got, error = failure("model", *(names.get(word, word) for word in words))
    assert (got, error["code"]) == (exit_code, code), error
    assert not (tmp_path / "out" / MANIFEST_FILE).exists()
