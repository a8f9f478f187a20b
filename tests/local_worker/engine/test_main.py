"""The engine process by itself: refused files, nonsense on its socket, and the end of its parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local_worker.engine import errors
from local_worker.engine.client import Engine
from local_worker.engine.frames import FrameReader, Kind, frame


@contextmanager
def engine_process(model: Path) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    command = [sys.executable, "-P", "-m", "local_worker.engine", "--model", str(model), "--threads", "1"]
    command += ["--socket-fd", str(theirs.fileno()), "--context-rows", "256", "--sequences", "1"]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE) as process:
        theirs.close()
        with ours:
            yield process, ours
        process.kill()


@pytest.fixture
def tiny_bytes(tiny_model: Path) -> bytes:
    return tiny_model.read_bytes()


async def start(model: Path, tmp_path: Path) -> Engine:
    return await Engine.start(model, context_rows=256, sequences=1, threads=1, log_path=tmp_path / "log")


async def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    noise = tmp_path / "noise.gguf"
    noise.write_bytes(b"GGUF" + bytes(range(256)) * 40)
    with pytest.raises(errors.ModelRefused, match=r"noise\.gguf"):
        await start(noise, tmp_path)
    with pytest.raises(errors.ModelRefused, match=r"nowhere\.gguf"):
        await start(tmp_path / "nowhere.gguf", tmp_path)


async def test_a_file_cut_short_is_refused_with_llama_cpps_reason(tiny_bytes: bytes, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_bytes[:-5000])
    with pytest.raises(errors.ModelRefused, match=r"cut\.gguf.*not within the file bounds"):
        await start(cut, tmp_path)


@pytest.mark.parametrize("place", range(0, 4000, 400))
async def test_a_damaged_header_never_hurts_the_service(
    tiny_bytes: bytes, tmp_path: Path, place: int
) -> None:
    data = bytearray(tiny_bytes)
    data[place : place + 8] = b"\xff" * 8
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(data)
    try:
        engine = await start(damaged, tmp_path)
    except (errors.ModelRefused, errors.EngineGone) as error:
        assert error.message
    else:
        assert engine.info.architecture == "llama"
        await engine.close()


async def test_an_architecture_outside_the_list_is_refused_by_name(tiny_bytes: bytes, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    data = tiny_bytes
    key = b"general.architecture"
    at = data.index(key) + len(key) + 4  # past the key and the value's type
    renamed = data[:at] + len(b"mamba").to_bytes(8, "little") + b"mamba" + data[at + 8 + 5 :]
    other.write_bytes(renamed.replace(b"llama.", b"mamba."))
    with pytest.raises(errors.ModelRefused, match="mamba"):
        await start(other, tmp_path)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 64,
        b"\x00\x00\x00\x00",
        frame(Kind.DECODE, 1, b"short"),
        frame(Kind.READY, 1),
        frame(Kind.CLEAR, 1, b"\xff\xff\xff\xff"),
        b"\x05\x00\x00\x00\x63\x00\x00\x00\x00",
    ],
)
def test_nonsense_ends_the_engine_cleanly(tiny_model: Path, garbage: bytes) -> None:
    with engine_process(tiny_model) as (process, connection):
        assert FrameReader().feed(connection.recv(1 << 16))[0][0] is Kind.READY
        connection.sendall(garbage)
        assert connection.recv(1) == b""
        _, words = process.communicate(timeout=60)
        assert process.returncode == 3
        assert b"is no request" in words
        assert b"Traceback" not in words


def test_the_engine_ends_with_its_socket(tiny_model: Path) -> None:
    with engine_process(tiny_model) as (process, connection):
        connection.recv(1 << 16)
        connection.close()
        assert process.wait(timeout=60) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_the_engine_dies_with_its_parent(tiny_model: Path, tmp_path: Path) -> None:
    parent = """
import asyncio, sys
from pathlib import Path
from local_worker.engine.client import Engine
async def main():
    engine = await Engine.start(Path(sys.argv[1]), context_rows=256, sequences=1, threads=1,
                                log_path=Path(sys.argv[2]))
    print(engine._process.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    command = [sys.executable, "-c", parent, str(tiny_model), str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        os.kill(child, signal.SIGSTOP)  # it cannot see its socket close: only the kernel can end it
        process.kill()
        process.wait()
        deadline = time.monotonic() + 60
        while _runs(child) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not _runs(child)


def _runs(process: int) -> bool:
    """Is it there and no zombie that waits for somebody to ask after it?"""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
