"""What a worker says of itself."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from local_worker.errors import HomeBusy
from local_worker.files import is_running, locked_home
from local_worker.status import RowMeter, SliceStatus, Status, StatusFile, read_status, status_file


def test_the_file_changes_when_the_status_does(tmp_path: Path) -> None:
    file = StatusFile(tmp_path)
    file.write(Status(pid=5))
    first = status_file(tmp_path).stat().st_ino
    file.write(Status(pid=5))
    assert status_file(tmp_path).stat().st_ino == first
    file.write(Status(pid=5, state="serving"))
    found = read_status(tmp_path)
    assert found is not None and (found["pid"], found["state"]) == (5, "serving")
    assert stat.S_IMODE(status_file(tmp_path).stat().st_mode) == 0o600


def test_a_full_disk_costs_the_news_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = StatusFile(tmp_path)
    file.write(Status(pid=5))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as while_full:
        while_full.setattr("local_worker.status.write_private", full)
        for _ in range(3):
            file.write(Status(pid=5, state="serving"))
    found = read_status(tmp_path)
    assert found is not None and found["state"] == "starting", "the old content is whole"
    (said,) = caplog.messages
    assert str(status_file(tmp_path)) in said and "No space left" in said
    file.write(Status(pid=5, state="serving"))
    found = read_status(tmp_path)
    assert found is not None and found["state"] == "serving"


def test_no_status_and_a_broken_one_are_none(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    status_file(tmp_path).write_text("[1]")
    assert read_status(tmp_path) is None


def test_rows_a_second_are_those_of_the_last_ten(tmp_path: Path) -> None:
    now = [100.0]
    meter = RowMeter(lambda: now[0])
    meter.count(50)
    now[0] = 105.0
    meter.count(30)
    assert (meter.rows, meter.rows_per_s) == (80, 8.0)
    now[0] = 111.0
    assert meter.rows_per_s == 3.0
    now[0] = 200.0
    assert (meter.rows, meter.rows_per_s) == (80, 0.0)


def test_one_worker_a_home(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    with locked_home(tmp_path):
        assert is_running(tmp_path)
        with pytest.raises(HomeBusy), locked_home(tmp_path):
            pytest.fail("two workers in one home")
    assert not is_running(tmp_path)


def test_the_worker_says_what_its_slices_have_together() -> None:
    status = Status(pid=5)
    status.take(
        [
            SliceStatus(sequences=8, context_rows=4096, gpu_layers=0),
            SliceStatus(sequences=4, context_rows=1024, device="Some Card 9000", gpu_layers=12),
        ]
    )
    assert (status.sequences, status.context_rows) == (12, 1024)
    assert (status.device, status.gpu_layers) == ("Some Card 9000", 12)
