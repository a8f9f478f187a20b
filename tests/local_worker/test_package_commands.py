"""``dllm-worker model`` from the outside: envelopes, exit codes, what is left on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dllm_protocol.gguf.reading import read_head
from local_worker.model_files import packaged_model
from local_worker.packages.package import load_package, piece_path
from tests.local_worker.test_cli import data, failure, run


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands") / "guide.package"
    told = data("model", "pack", str(packaged_model()), "--out", str(folder), "--licence", "Apache-2.0")
    assert (told["package"], told["name"], told["layers"]) == (str(folder), "guide", 4)
    return folder


def test_pack_and_show_and_verify_say_the_same(package: Path) -> None:
    shown, verified = data("model", "show", str(package)), data("model", "verify", str(package))
    assert verified.pop("verified") is True
    pieces = shown.pop("pieces")
    assert shown == verified
    assert shown["size_bytes"] == sum(piece["size_bytes"] for piece in pieces)
    assert [piece["kind"] for piece in pieces] == ["header", "embedding", *["block"] * 4, "output", "probe"]
    assert (shown["licence"], shown["chat_template"], shown["piece_count"]) == ("Apache-2.0", "chatml", 8)
    assert shown["has_probe"] is True
    again = data("model", "show", str(package), "--manifest-hash", shown["manifest_hash"].upper())
    assert again["vocabulary_hash"] == shown["vocabulary_hash"]
    assert "vocabulary hash: " in run("model", "show", str(package)).stdout


@pytest.mark.parametrize(("layers", "first", "end"), [("1:3", 1, 3), (":2", 0, 2), ("2:", 2, 4), (":", 0, 4)])
def test_layers_as_they_are_typed(package: Path, tmp_path: Path, layers: str, first: int, end: int) -> None:
    out = tmp_path / "chunk.gguf"
    told = data("model", "assemble", str(package), "--layers", layers, "--out", str(out))
    assert (told["first_layer"], told["end_layer"], told["size_bytes"]) == (first, end, out.stat().st_size)
    with out.open("rb") as stream:
        metadata = read_head(stream.read, out.stat().st_size).metadata
    assert metadata["llama.block_count"].integer("it") == end - first


@pytest.mark.parametrize(
    ("words", "exit_code", "code"),
    [
        (("show", "nowhere"), 6, "E_PACKAGE"),
        (("pack", "nowhere.gguf"), 2, "E_USAGE"),
        (("pack", "pyproject.toml"), 8, "E_MODEL_FORMAT"),
        (("assemble", "PACKAGE", "--layers", "1-2", "--out", "OUT"), 2, "E_USAGE"),
        (("assemble", "PACKAGE", "--layers", "1:9", "--out", "OUT"), 2, "E_LAYERS"),
        (("verify", "PACKAGE", "--manifest-hash", "00"), 2, "E_USAGE"),
        (("verify", "PACKAGE", "--manifest-hash", "00" * 32), 8, "E_VERIFY"),
    ],
)
def test_what_goes_wrong_has_a_name(
    package: Path, tmp_path: Path, words: tuple[str, ...], exit_code: int, code: str
) -> None:
    names = {"PACKAGE": str(package), "OUT": str(tmp_path / "chunk.gguf")}
    got, error = failure("model", *(names.get(word, word) for word in words))
    assert (got, error["code"]) == (exit_code, code), error
    assert not (tmp_path / "chunk.gguf").exists()


def test_a_damaged_piece_is_told_and_no_chunk_is_built(tmp_path: Path) -> None:
    mine = tmp_path / "mine.package"
    packed = data("model", "pack", str(packaged_model()), "--out", str(mine), "--no-probe")
    assert (packed["has_probe"], packed["piece_count"]) == (False, 7)
    piece = load_package(mine).pieces[3]
    path = piece_path(mine, piece)
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    exit_code, error = failure("model", "verify", str(mine))
    assert (exit_code, error["code"]) == (8, "E_PIECE")
    assert error["message"].startswith("piece block 1 has root")
    exit_code, error = failure(
        "model", "assemble", str(mine), "--layers", "0:2", "--out", str(tmp_path / "x.gguf")
    )
    assert (exit_code, error["code"]) == (8, "E_PIECE")
    assert [one.name for one in tmp_path.iterdir()] == ["mine.package"]


def test_a_package_lies_beside_its_file_unless_told_otherwise(tmp_path: Path) -> None:
    model = tmp_path / "My Model.gguf"
    model.write_bytes(packaged_model().read_bytes())
    told = data("model", "pack", str(model), "--no-probe")
    assert (told["package"], told["name"]) == (str(tmp_path / "My Model.package"), "my-model")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pack_that_is_told_to_end_clears_up(tmp_path: Path, number: signal.Signals) -> None:
    """Its output goes into a pipe that nobody reads, so that it stands still in the middle."""
    model = tmp_path / "model.gguf"
    model.write_bytes(packaged_model().read_bytes())
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writing, True)
    # As a terminal starts it: whoever runs these tests may have told them to ignore Ctrl-C.
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start += "from local_worker.package_commands import app; app()"
    command = [sys.executable, "-c", start, "pack", str(model)]
    process = subprocess.Popen(command, stderr=writing, stdout=subprocess.DEVNULL)
    working = tmp_path / ".model.package.packing"
    while not (working / "pieces").is_dir():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(60) == 130
    os.close(reading)
    os.close(writing)
    assert [one.name for one in tmp_path.iterdir()] == ["model.gguf"]
