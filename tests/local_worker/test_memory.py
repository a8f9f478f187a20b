"""What bounds memory, read from trees as Linux shows them; and that a look is not taken for every row."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_worker.memory import FLOOR_BYTES, LOOK_EVERY_S, FreeMemory, MemoryWatch, free_memory

MIB = 1 << 20


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MACHINE = {"proc/meminfo": "MemTotal:  4096000 kB\nMemAvailable:  2048000 kB\nHugePages_Total: 0\n"}


def test_a_machine_without_limits_has_what_is_available(tmp_path: Path) -> None:
    found = free_memory(written(tmp_path, {**MACHINE, "proc/self/cgroup": "0::/user.slice\n"}))
    assert found.free_bytes == 2048000 << 10


def test_the_least_limit_of_our_groups_and_those_above_counts(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        {
            **MACHINE,
            "proc/self/cgroup": "0::/outer/inner\n",
            "sys/fs/cgroup/outer/inner/memory.max": "max\n",
            "sys/fs/cgroup/outer/inner/memory.current": f"{100 * MIB}\n",
            "sys/fs/cgroup/outer/memory.max": f"{500 * MIB}\n",
            "sys/fs/cgroup/outer/memory.current": f"{300 * MIB}\n",
            "sys/fs/cgroup/outer/memory.stat": f"anon 5\ninactive_file {20 * MIB}\n",
        },
    )
    found = free_memory(root)
    assert found.free_bytes == 220 * MIB
    assert "500 MiB" in found.bound


def test_limits_of_version_one_count_too(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/memory/box"
    root = written(
        tmp_path,
        {
            **MACHINE,
            "proc/self/cgroup": "9:name=systemd:/\n4:memory,hugetlb:/box\n0::/\n",
            f"{base}/memory.limit_in_bytes": f"{400 * MIB}\n",
            f"{base}/memory.usage_in_bytes": f"{450 * MIB}\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{900 * MIB}\n",
        },
    )
    found = free_memory(root)
    assert found.free_bytes == 0, "never below nothing"
    assert "400 MiB" in found.bound


def test_a_group_outside_of_what_is_seen_is_left_out(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        {
            **MACHINE,
            "proc/self/cgroup": "0::/../other\n",
            "sys/fs/other/memory.max": "1\n",
            "sys/fs/other/memory.current": "1\n",
        },
    )
    assert free_memory(root).free_bytes == 2048000 << 10


def test_this_machine_has_some() -> None:
    assert free_memory().free_bytes > 0


def test_a_watch_looks_at_most_every_half_second() -> None:
    now_s = [5.0]
    looks: list[int] = []
    free = [FLOOR_BYTES - 1]

    def measure() -> FreeMemory:
        looks.append(free[0])
        return FreeMemory(free[0], "a limit")

    watch = MemoryWatch(lambda: now_s[0], measure)
    assert "63 MiB are free (a limit)" in watch.shortage()
    free[0] = FLOOR_BYTES
    assert watch.shortage()
    assert len(looks) == 1
    now_s[0] += LOOK_EVERY_S
    assert watch.shortage() == ""
    assert len(looks) == 2


@pytest.mark.parametrize("text", ["", "garbage", "0:", "x:memory:/a\n0::\n"])
def test_odd_lines_bound_nothing(tmp_path: Path, text: str) -> None:
    assert free_memory(written(tmp_path, {**MACHINE, "proc/self/cgroup": text})).free_bytes == 2048000 << 10
