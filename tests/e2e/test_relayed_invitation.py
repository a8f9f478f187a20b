"""Two homes and a relay's process: one invites, the other types a code, and both follow one verified chain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.light_rig import DEADLINE_S, Home, Published, published, wide_lines
from tests.full_node.relay.test_cli import relay


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """A published network."""
    with published(tmp_path_factory.mktemp("relayed")) as made:
        yield made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, network: Published) -> Home:
    """Somebody who joined the network, and invites."""
    made = Home(tmp_path_factory.mktemp("person") / "home")
    bundle = network.publish()
    assert made.dllm("network", "join", bundle["file"], "--fingerprint", bundle["fingerprint"]).code == 0
    return made


def test_somebody_elsewhere_joins_through_a_relay_and_verifies(
    network: Published, home: Home, tmp_path: Path
) -> None:
    friend = Home(tmp_path / "friend")
    with relay(tmp_path / "relay", "--json") as (process, line):
        url = json.loads(line)["data"]["url"]
        with home.serving("network", "invite", "--relay", url) as (inviting, told):
            assert (told["relay"], len(told["code"].replace("-", "")), told["minutes"]) == (url, 20, 15)
            joined = friend.dllm("network", "join", told["code"].lower(), "--relay", url, "--json").data
            assert (joined["chain_id"], joined["confirmed_by"]) == (network.chain_id, "the invitation")
            assert (joined["fingerprint"], joined["trust_hash"]) == (told["fingerprint"], told["trust_hash"])
            status = friend.dllm("light", "status", "--json").data
            assert (status["state"], status["chain_id"]) == ("verified", network.chain_id)
            assert status["height"] >= told["trust_height"]
            mistyped = told["code"][:-1] + ("0" if told["code"][-1] != "0" else "1")
            refused = friend.dllm("network", "join", mistyped, "--relay", url, "--json")
            assert (refused.code, refused.error["code"]) == (2, "E_INVITATION_CODE")
            unnamed = friend.dllm("network", "join", told["code"], "--json")
            assert (unnamed.code, unnamed.error["code"]) == (2, "E_USAGE")
            inviting.send_signal(signal.SIGINT)
            assert inviting.wait(DEADLINE_S) == 0
        over = friend.dllm("network", "join", told["code"], "--relay", url, "--json")
        assert (over.code, over.error["code"]) == (6, "E_NOT_FOUND")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    log = (tmp_path / "relay" / "logs" / "node.log").read_text()
    assert network.chain_id not in log
    assert "127.0.0.1" not in "".join(log.splitlines()[1:]), "the first line says where it listens"
    gone = home.dllm("network", "invite", "--relay", url, "--json")
    assert (gone.code, gone.error["code"]) == (3, "E_RELAY_UNREACHABLE")
    gone = friend.dllm("network", "join", told["code"], "--relay", url, "--json")
    assert (gone.code, gone.error["code"]) == (3, "E_RELAY_UNREACHABLE")


def test_a_relay_in_the_settings_is_enough_and_may_die_and_come_back(
    network: Published, home: Home, tmp_path: Path
) -> None:
    friend = Home(tmp_path / "friend")
    with relay(tmp_path / "relay", "--json") as (process, line):
        url = json.loads(line)["data"]["url"]
        for one in (home, friend):
            one.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (one.folder / "config.toml").write_text(f'relay = "{url}"\n')
        try:
            with home.serving("network", "invite", "--minutes", "5") as (_, told):
                assert told["relay"] == url
                os.kill(process.pid, signal.SIGKILL)
                process.wait(DEADLINE_S)
                with relay(tmp_path / "relay", "--listen", url.removeprefix("ws://"), "--json"):
                    code = 6
                    while code == 6:  # until the inviter is back
                        code = friend.dllm("network", "join", told["code"], "--json").code
                    assert code == 0
            with home.serving("network", "invite", "--lan", "--address", "127.0.0.1") as (_, near):
                assert len(near["code"].replace("-", "")) == 28
        finally:
            (home.folder / "config.toml").unlink()


def test_what_is_said_fits_a_terminal_and_what_makes_no_sense_is_refused(home: Home, tmp_path: Path) -> None:
    both = home.dllm("network", "invite", "--relay", "ws://127.0.0.1:1", "--lan", "--json")
    assert (both.code, both.error["code"]) == (2, "E_USAGE")
    plain = home.dllm("network", "invite", "--relay", "ws://relay.example", "--json")
    assert (plain.code, plain.error["code"]) == (2, "E_RELAY_ADDRESS")
    nowhere = home.dllm("network", "invite", "--plain-relay", "--json")
    assert (nowhere.code, nowhere.error["code"]) == (2, "E_USAGE")
    with relay(tmp_path / "relay", "--json") as (_, line):
        url = json.loads(line)["data"]["url"]
        told = _words(home, url)
        assert not wide_lines(told)
        assert f"--relay {url}" in told


def _words(home: Home, url: str) -> str:
    """What the inviting command says to a person."""
    process = subprocess.Popen(
        home.command("network", "invite", "--relay", url),
        env=home.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 0
    assert process.stderr is not None
    with process.stdout as out, process.stderr as err:
        assert "fetched 0 times" in err.read()
        return first + out.read()
