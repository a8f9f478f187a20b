"""`dllm doctor` names a broken clock, port, node, version and trust, and what to do about each."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_chat.cli import checks
from dllm_chat.cli.checks_network import Asked, clock_checks
from dllm_chat.history.schema import SCHEMA
from dllm_chat.paths import find_paths, write_private
from dllm_chat.session.networks import join_network, light_store_file
from dllm_protocol.bundle import NetworkBundle, SignedBundle, sign_bundle
from dllm_protocol.signing import SeedSigner
from light_node.trust_store import TrustStore
from tests.dllm_chat.cli.conftest import Ran
from tests.light_node.signed_chain import SignedChain
from tests.vectors.record_formats import BUNDLE

Dllm = Callable[..., Ran]
PUBLISHER = SeedSigner(b"\x09" * 32)
NS_PER_S = 1_000_000_000


def found(ran: Ran) -> dict[str, dict[str, str]]:
    return {one["name"]: one for one in ran.data["checks"]}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def joined(tmp_home: Path) -> NetworkBundle:
    """A network whose only node does not answer."""
    bundle = replace(BUNDLE.bundle, sources=(f"ws://127.0.0.1:{closed_port()}/websocket",), witnesses=())
    signed: SignedBundle = sign_bundle(PUBLISHER, bundle)
    assert tmp_home.is_dir()
    join_network(find_paths(), signed.encode(), confirmed_signer=PUBLISHER.public_key)
    return bundle


def test_a_node_that_does_not_answer_fails_with_an_exit_code(dllm: Dllm, joined: NetworkBundle) -> None:
    ran = dllm("doctor", "--json")
    assert (ran.code, ran.data["healthy"]) == (11, False)
    assert found(ran)["node"]["state"] == "fail" and joined.sources[0] in found(ran)["node"]["found"]
    assert found(ran)["trust"]["state"] == "ok"
    offline = dllm("doctor", "--offline", "--json")
    assert "node" not in found(offline) and offline.code == 0


@pytest.mark.parametrize(
    ("ahead_s", "state"), [(-5, "ok"), (9, "ok"), (11, "fail"), (3600, "fail"), (-10_000, "warn")]
)
def test_the_clock_is_held_against_the_median_of_the_nodes(ahead_s: int, state: str) -> None:
    chain = SignedChain(("a",), chain_id=BUNDLE.bundle.chain_id)
    header = chain.add().header
    newest_s = header.time.to_ns() // NS_PER_S
    liar = replace(header, time=header.time.add_ms(10**9))
    asked = [Asked("ws://a", header), Asked("ws://b", header), Asked("ws://c", liar), Asked("ws://d", None)]
    (check,) = clock_checks(asked, BUNDLE.bundle, now_ns=(newest_s - ahead_s) * NS_PER_S)
    assert check.state == state
    assert (check.hint != "") == (state != "ok")


def test_trust_that_expired_is_found_and_left_alone(dllm: Dllm, joined: NetworkBundle) -> None:
    chain = SignedChain(("a",), chain_id=joined.chain_id)
    chain.grow(2)
    file = light_store_file(find_paths(), joined.chain_id)
    with TrustStore(file, joined.chain_id) as store:
        store.add(chain.light_block(1))
    before = file.read_bytes()
    check = found(dllm("doctor", "--json"))["trust"]
    assert check["state"] == "fail" and "dllm light trust refresh" in check["hint"]
    assert file.read_bytes() == before


def test_a_closed_port_that_a_worker_announced_is_found(dllm: Dllm, tmp_home: Path) -> None:
    status = tmp_home / "data" / "worker" / "status.json"
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        reachable = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        write_private(status, json.dumps({"state": "serving", "endpoints": [reachable]}).encode())
        assert found(dllm("doctor", "--json"))["announced endpoint"]["state"] == "ok"
    closed = f"ws://127.0.0.1:{closed_port()}"
    write_private(status, json.dumps({"state": "serving", "endpoints": [closed, 7]}).encode())
    ran = dllm("doctor", "--json")
    assert (ran.code, found(ran)["announced endpoint"]["state"]) == (11, "fail")
    assert "forward the port" in found(ran)["announced endpoint"]["hint"]


def test_an_announced_address_at_a_relay_is_asked_for_there(dllm: Dllm, tmp_home: Path) -> None:
    status = tmp_home / "data" / "worker" / "status.json"
    gone = f"relay+ws://127.0.0.1:{closed_port()}/{bytes(32).hex()}"
    write_private(status, json.dumps({"state": "serving", "endpoints": [gone]}).encode())
    ran = dllm("doctor", "--json")
    assert (ran.code, found(ran)["announced endpoint"]["state"]) == (11, "fail")
    assert "cannot reach the relay" in found(ran)["announced endpoint"]["found"]
    assert "dllm worker status" in found(ran)["announced endpoint"]["hint"]


def test_a_machine_that_cannot_listen_is_found(dllm: Dllm, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(checks.socket.socket, "bind", refused)
    assert found(dllm("doctor", "--offline", "--json"))["loopback"]["state"] == "fail"


def test_a_store_of_a_newer_program_and_one_that_is_none_are_found(dllm: Dllm, tmp_home: Path) -> None:
    folder = tmp_home / "data"
    folder.mkdir(mode=0o700)
    with sqlite3.connect(folder / "chats.db") as database:
        database.execute("CREATE TABLE kept (x)")
        database.execute(f"PRAGMA application_id = {SCHEMA.application_id}")
        database.execute("PRAGMA user_version = 99")
    check = found(dllm("doctor", "--offline", "--json"))["stores"]
    assert check["state"] == "fail" and "99" in check["found"] and "newer" in check["hint"]
    (folder / "chats.db").write_bytes(b"no database at all")
    assert "no database" in found(dllm("doctor", "--offline", "--json"))["stores"]["found"]


def test_another_cometbft_is_found(dllm: Dllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "cometbft"
    program.write_text("#!/bin/sh\necho 1.0.1\n")
    program.chmod(0o700)
    monkeypatch.setenv("DLLM_COMETBFT", str(program))
    check = found(dllm("doctor", "--offline", "--json"))["cometbft"]
    assert (check["state"], "1.0.1" in check["found"], check["hint"]) == ("fail", True, "make cometbft")


@pytest.mark.parametrize(("attribute", "value"), [("PYTHON_MIN", (99, 0)), ("SQLITE_MIN", (99, 0, 0))])
def test_an_old_python_or_sqlite_is_found(
    dllm: Dllm, monkeypatch: pytest.MonkeyPatch, attribute: str, value: tuple[int, ...]
) -> None:
    monkeypatch.setattr(f"dllm_chat.cli.checks_versions.{attribute}", value)
    name = attribute.partition("_")[0].lower()
    assert found(dllm("doctor", "--offline", "--json"))[name]["state"] == "fail"
