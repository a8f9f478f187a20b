"""`dllm-node` as a person or a supervisor uses it: real processes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.request import urlopen

from full_node.home import NodeHome
from tests.full_node.processes import NODE, NodeProcess, Sender, dllm_node, init_with


def test_init_makes_a_folder_once_and_is_idempotent(tmp_path: Path) -> None:
    home = tmp_path / "node"
    chain_id = init_with(home, [Sender.numbered(1)])
    assert chain_id.startswith("dllm-local-")
    assert home.stat().st_mode & 0o777 == 0o700
    again = dllm_node("init", "--home", home, "--json")
    assert json.loads(again.stdout)["data"]["chain_id"] == chain_id
    other = tmp_path / "other"
    copied = dllm_node("init", "--home", other, "--genesis", NodeHome(home).genesis, "--json")
    assert json.loads(copied.stdout)["data"]["chain_id"] == chain_id
    key = dllm_node("key", "--home", home, "--json")
    assert json.loads(key.stdout)["data"]["public_key"] == json.loads(again.stdout)["data"]["public_key"]
    clash = dllm_node("init", "--home", tmp_path / "third", "--json")
    foreign = dllm_node("init", "--home", home, "--genesis", NodeHome(tmp_path / "third").genesis, "--json")
    assert clash.returncode == 0
    assert (foreign.returncode, json.loads(foreign.stdout)["error"]["code"]) == (2, "E_NODE_HOME")


def test_mistakes_are_told_with_code_and_hint(tmp_path: Path) -> None:
    home = tmp_path / "node"
    folder = str(home)
    for arguments, status, words in (
        (["start", "--home", folder], 2, "is not a node's folder"),
        (["init", "--home", folder, "--account", "nonsense"], 2, "ADDRESS=DLLM"),
        (["status", "--home", folder], 3, "no node runs"),
    ):
        done = dllm_node(*arguments)
        assert (done.returncode, done.stdout) == (status, ""), done
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    init_with(home, [])
    for listen, words in (("nowhere", "HOST:PORT"), ("203.0.113.1:1", "cannot listen on")):
        done = dllm_node("start", "--home", home, "--rpc-listen", listen)
        assert done.returncode == 2
        assert words in done.stderr


def test_start_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    home = tmp_path / "node"
    chain_id = init_with(home, [])
    node = NodeProcess.start(home)
    place = NodeHome(home)
    assert node.chain_id == chain_id
    assert json.loads(place.rpc.read_text()) == {
        "address": node.address,
        "pid": node.process.pid,
        "chain_id": chain_id,
    }
    with urlopen(f"{node.url}/status", timeout=60) as answer:
        assert json.load(answer)["result"]["node_info"]["network"] == chain_id
    status = dllm_node("status", "--home", home, "--json")
    assert json.loads(status.stdout)["data"]["address"] == node.address
    second = dllm_node("start", "--home", home)
    assert (second.returncode, "another node runs" in second.stderr) == (2, True)
    assert node.stop() == 0
    assert not place.rpc.exists()
    assert dllm_node("status", "--home", home).returncode == 3
    lines = [json.loads(line) for line in (place.logs / "node.log").read_text().splitlines()]
    assert {"info"} >= {line["level"] for line in lines if "height=1 " in line["message"]}
    assert any(line["message"].startswith("stopped") for line in lines)
    for file in (place.logs / "node.log", place.key, place.genesis, place.database, place.sign_state):
        assert file.stat().st_mode & 0o077 == 0, file


def test_the_lifeline_ends_the_node_with_its_holder(tmp_path: Path) -> None:
    home = tmp_path / "node"
    init_with(home, [])
    node = NodeProcess.start(home, "--lifeline")
    assert node.process.stdin is not None
    node.process.stdin.close()
    assert node.process.wait(60) == 0


def test_a_node_dies_with_a_killed_parent(tmp_path: Path) -> None:
    import subprocess
    import sys

    home = tmp_path / "node"
    init_with(home, [])
    # The grandchild's standard input stays open here, so that only the parent's death can end it.
    program = (
        "import subprocess, sys\n"
        f"subprocess.Popen({[*NODE, 'start', '--home', str(home), '--lifeline']!r})\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    said = json.loads(parent.stdout.readline())
    parent.kill()
    parent.wait(60)
    deadline = time.monotonic() + 60
    while NodeHome(home).rpc.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not NodeHome(home).rpc.exists(), f"process {said['pid']} lives on"
    parent.stdin.close()
    parent.stdout.close()


def test_a_token_file_closes_the_door(tmp_path: Path) -> None:
    home = tmp_path / "node"
    init_with(home, [])
    token = tmp_path / "token"
    empty = dllm_node("start", "--home", home, "--token-file", token)
    assert (empty.returncode, "cannot be read" in empty.stderr) == (2, True)
    token.write_text("let-me-in\n")
    node = NodeProcess.start(home, "--token-file", str(token))
    from urllib.error import HTTPError
    from urllib.request import Request

    try:
        with urlopen(Request(f"{node.url}/health", headers={"Authorization": "Bearer let-me-in"})) as answer:
            assert answer.status == 200
        told = json.loads(dllm_node("status", "--home", home, "--json").stdout)["data"]
        assert (told["address"], told["height"]) == (node.address, None)  # it does not have the token
        try:
            urlopen(f"{node.url}/health")
        except HTTPError as error:
            assert error.code == 401
            error.close()
        else:
            raise AssertionError("the node answered without a token")
    finally:
        assert node.stop() == 0
