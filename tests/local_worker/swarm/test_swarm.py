"""What a session runs under: who may come, how much may go out, and that nobody else is told."""

from __future__ import annotations

import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from local_worker.swarm.errors import ListenRefused, SwarmMissing
from local_worker.swarm.sources import Limits
from local_worker.swarm.swarm import Swarm
from tests.local_worker.swarm.rig import LOOPBACK, Made, a_swarm, get, held, seeding

LIMIT = 600_000


def test_nobody_is_asked_who_else_has_it_unless_told_so() -> None:
    with a_swarm() as swarm:
        settings = swarm.settings()
        assert swarm.listens_at is None
    off = (
        "enable_dht",
        "enable_lsd",
        "enable_upnp",
        "enable_natpmp",
        "enable_incoming_utp",
        "enable_outgoing_utp",
    )
    assert not any(settings[name] for name in off)
    assert settings["anonymous_mode"] and settings["listen_interfaces"] == ""


def test_the_limits_are_those_of_the_session() -> None:
    with a_swarm(Limits(LIMIT, 700_000, 12), LOOPBACK) as swarm:
        settings = swarm.settings()
        assert swarm.listens_at is not None and swarm.listens_at[1] > 0
    assert (settings["upload_rate_limit"], settings["download_rate_limit"]) == (LIMIT, 700_000)
    assert settings["connections_limit"] == 12


@pytest.mark.parametrize("limit", [LIMIT, 0])
def test_peers_on_this_machine_are_held_back_by_the_limit_as_well(
    made: Made, tmp_path: Path, limit: int
) -> None:
    """libtorrent counts who waits for its turn under a limit; left alone it has none for peers nearby."""
    with seeding(made.folder, Limits(upload_bytes_per_s=limit)) as (swarm, place):
        fetching = threading.Thread(
            target=get, args=(made, (1, 2), tmp_path / "out"), kwargs={"peers": [place]}
        )
        fetching.start()
        most_waiting = 0
        while fetching.is_alive():
            swarm.poll(20)
            most_waiting = max(most_waiting, swarm.counters().get("net.limiter_up_queue", 0))
            time.sleep(0.02)
        fetching.join()
        assert swarm.uploaded_bytes() >= made.bytes_of(1, 2)
    assert held(tmp_path / "out") == made.roots(1, 2)
    assert (most_waiting > 0) == (limit > 0)


def test_an_address_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(LOOPBACK)
        taken.listen()
        place = taken.getsockname()
        with pytest.raises(ListenRefused, match=f"nobody can listen at 127.0.0.1:{place[1]}: "):
            Swarm(Limits(), place)


def test_a_machine_without_libtorrent_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libtorrent", None)
    with pytest.raises(SwarmMissing, match="libtorrent is not installed") as missing:
        Swarm(Limits())
    assert "make setup" in missing.value.hint
