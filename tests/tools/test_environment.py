"""What setup says meanwhile: the newest step, as long as it lasts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.setup import environment

COMPILED = "/usr/bin/c++ -DGGML_BUILD -O3 -std=gnu++17 -o src/llama.cpp.o -c /build/src/llama.cpp"
LINKED = ": && /usr/bin/c++ -fPIC -shared -Wl,-soname,libggml.so -o bin/libggml.so a.o b.o -lpthread && :"
ARCHIVED = (
    ": && /usr/bin/cmake -E rm -f libcommon.a && /usr/bin/ar qc libcommon.a c.o && ranlib libcommon.a && :"
)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("", ""),
        ("Looking in indexes: somewhere\n", ""),
        ("Collecting aiohttp==3.14.1 (from -r /tmp/x/ready.txt)\n  Downloading a.whl\n", "aiohttp==3.14.1"),
        ("Collecting a==1\n  Collecting b==2\n", "b==2"),
        (f"  [20/140] {COMPILED}\n", "20/140 llama.cpp"),
        (f"[16/140] {LINKED}\n", "16/140 libggml.so"),
        (f"[17/140] {ARCHIVED}\n", "17/140 libcommon.a"),
        ("[ 12%] Building CXX object src/unicode.cpp.o\n", "12% unicode.cpp.o"),
        ("[3/9]\n", "3/9"),
        (f"[20/140] {COMPILED}\n[21/140] /usr/bin/c++ -DGG", "20/140 llama.cpp"),
        (f"Collecting llama-cpp-python==0.3.36\n[20/140] {COMPILED}\n", "20/140 llama.cpp"),
    ],
)
def test_the_newest_whole_line_that_names_a_step_is_shown(tmp_path: Path, written: str, shown: str) -> None:
    log = tmp_path / "setup.log"
    log.write_text(written)
    assert environment.last_step(log) == shown


def test_a_step_stays_until_the_next_one_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = iter(["", "20/140 llama.cpp", "", ""])
    monkeypatch.setattr(environment, "ENVIRONMENT", tmp_path)
    monkeypatch.setattr(environment, "last_step", lambda _: next(steps))
    monkeypatch.setattr(environment, "REPORT_EVERY_S", 0)
    monkeypatch.setattr(environment.subprocess, "Popen", _Child)
    environment.run("llama.cpp", [], {}, "")
    said = [line.rpartition(" · ")[2] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert said == ["working", *["20/140 llama.cpp"] * 3]


class _Child:
    """A program that runs for four looks, and succeeds."""

    returncode = 0

    def __init__(self, *_: object, **__: object) -> None:
        self._looks = 4

    def poll(self) -> int | None:
        self._looks -= 1
        return None if self._looks >= 0 else 0
