"""`dllm light` and `dllm network` as a newcomer meets them: processes, a real node, text for 80 columns."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dllm_protocol import state_keys
from dllm_protocol.json_shape import to_base64
from tests.dllm_chat.cli.terminal import Terminal
from tests.documented_metrics import documented
from tests.e2e.light_rig import DEADLINE_S, Home, Published, node_before, published, wide_lines
from tests.e2e.lying_node import Lie

DAY_S = 86_400


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """A published network with one transfer in its chain."""
    with published(tmp_path_factory.mktemp("lighted")) as made:
        made.publish()
        made.sender.chain_id = made.chain_id
        yield made


@pytest.fixture(scope="module")
def transfer(network: Published) -> str:
    """Hash of a transfer that is in a block."""
    raw = network.sender.transfer(b"\x02" * 20, 5)
    return str(asyncio.run(_call(network, "broadcast_tx_commit", tx=to_base64(raw)))["hash"])


async def _call(network: Published, method: str, **params: Any) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"http://{network.address}/", json=body) as response,
    ):
        return (await response.json())["result"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, network: Published) -> Home:
    """Somebody who joined the network; tests leave it so."""
    made = Home(tmp_path_factory.mktemp("person") / "home")
    bundle = network.publish()
    joined = made.dllm("network", "join", bundle["file"], "--fingerprint", bundle["fingerprint"])
    assert joined.code == 0, joined
    return made


def test_a_newcomer_joins_looks_and_verifies(network: Published, home: Home, transfer: str) -> None:
    bundle = network.publish()
    told = home.dllm("network", "join", bundle["file"], "--fingerprint", bundle["fingerprint"])
    assert told.code == 0
    for word in ("joined", network.chain_id, "test network", "trust root", "verified"):
        assert word in told.out
    assert not wide_lines(told.out)
    status = home.dllm("light", "status")
    assert not wide_lines(status.out)
    assert "one source only" in status.out
    data = home.dllm("light", "status", "--json").data
    assert (data["chain_id"], data["state"], data["lag_blocks"], data["problem"]) == (
        network.chain_id,
        "verified",
        0,
        "",
    )
    assert [one["role"] for one in data["peers"]] == ["primary"]
    synced = home.dllm("light", "sync", "--json").data
    assert synced["height"] >= data["height"]
    assert home.dllm("light", "sync", "--height", "1", "--json").data["height"] == 1
    trust = home.dllm("light", "trust", "--json").data
    assert trust["fingerprint"] == bundle["fingerprint"]
    assert trust["highest_height"] == synced["height"]
    assert trust["trust_expires_in_s"] > 0
    shown = home.dllm("light", "trust")
    assert not wide_lines(shown.out)
    assert home.dllm("light", "trust", "refresh", "--json").data["refreshed"] is False


def test_a_header_a_transaction_and_a_key_are_verified_with_their_proofs(
    network: Published, home: Home, transfer: str
) -> None:
    header = home.dllm("light", "verify", "2", "--json").data
    same = home.dllm("light", "verify", "--hash", header["hash"], "--json").data
    assert (same["height"], same["hash"]) == (2, header["hash"])
    found = home.dllm("light", "verify", "--tx", transfer, "--json").data
    assert (found["kind"], found["tx_hash"], found["code"]) == ("transaction", transfer, 0)
    text = home.dllm("light", "verify", "--tx", transfer).out
    for word in ("trust root", "data_hash", "last_results_hash"):
        assert word in text
    mine = state_keys.account(network.sender.address).decode()
    key = home.dllm("light", "verify", "--key", mine, "--json").data
    assert key["present"] and key["value"] and key["proof"]
    absent = home.dllm("light", "verify", "--key", f"0x{state_keys.account(bytes(20)).hex()}", "--json").data
    assert (absent["present"], absent["value"]) == (False, None)
    assert "absent" in home.dllm("light", "verify", "--key", "account/nobody").out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "name one thing"),
        (("--height", "1", "--tx", "00" * 32), 2, "name one thing"),
        (("3", "--height", "4"), 2, "two heights are named, 3 and 4"),
        (("--height", "2", "--hash", "AB" * 32), 8, "claimed was"),
        (("--height", "9000000"), 3, "must be less than or equal to"),
        (("--tx", "00" * 32), 6, "which proves nothing"),
        (("--tx", "xyz"), 2, "64 hex digits"),
        (("--key", "0xzz"), 2, "not hex"),
    ],
)
def test_what_does_not_hold_is_said(home: Home, words: tuple[str, ...], code: int, said: str) -> None:
    ran = home.dllm("light", "verify", *words, "--json")
    assert ran.code == code, ran
    assert said in ran.error["message"]


def test_a_lying_node_is_named_with_what_it_lied_about(network: Published, tmp_path: Path) -> None:
    def forge(result: Any, params: Any) -> Any:
        if "height" not in params or params["height"] != str(root):
            result["signed_header"]["header"]["app_hash"] = "AB" * 32
        return result

    with node_before(network.url, Lie("commit", answer=forge)) as liar:
        bundle = network.publish("--source", liar)
        root = bundle["trust_height"]
        asyncio.run(_one_more_block(network))
        home = Home(tmp_path / "home")
        refused = home.dllm(
            "network", "join", bundle["file"], "--fingerprint", bundle["fingerprint"], "--json"
        )
        assert refused.code == 8, refused
        assert refused.error["code"] == "E_HEADER"
        assert home.dllm("light", "trust", "--json").code == 6, "nothing was joined"


async def _one_more_block(network: Published) -> None:
    raw = network.sender.transfer(b"\x03" * 20, 1)
    await _call(network, "broadcast_tx_commit", tx=to_base64(raw))


def test_a_witness_of_ones_own_is_kept_and_asked(network: Published, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    bundle = network.publish()
    with node_before(network.url) as witness:
        joined = home.dllm(
            *("network", "join", bundle["file"], "--fingerprint", bundle["fingerprint"]),
            *("--witness", witness.removesuffix("/websocket"), "--json"),
        ).data
        assert joined["own_witnesses"] == [witness]
        asyncio.run(_one_more_block(network))
        data = home.dllm("light", "status", "--json").data
        assert {one["name"]: one["role"] for one in data["peers"]} == {
            network.url: "primary",
            witness: "witness",
        }
        assert (data["state"], data["warning"]) == ("verified", "")


def test_a_witness_that_begins_to_lie_is_shown_with_what_it_showed(
    network: Published, tmp_path: Path
) -> None:
    lying = threading.Event()

    def forge(result: Any, _: Any) -> Any:
        if lying.is_set():
            result["signed_header"]["header"]["app_hash"] = "AB" * 32
        return result

    home = Home(tmp_path / "home")
    bundle = network.publish()
    with node_before(network.url, Lie("commit", answer=forge)) as witness:
        joined = home.dllm(
            *("network", "join", bundle["file"], "--fingerprint", bundle["fingerprint"]),
            *("--witness", witness),
        )
        assert joined.code == 0, joined
        before = home.dllm("light", "sync", "--json").data
        lying.set()
        asyncio.run(_one_more_block(network))
        status = home.dllm("light", "status", "--json").data
        assert (status["height"], status["hash"]) == (before["height"], before["hash"]), (
            "nothing new is believed"
        )
        assert status["state"] != "verified"
        assert status["problem"]
        (liar,) = [one for one in status["peers"] if one["name"] == witness]
        assert liar["problem"]
        assert "problem" in home.dllm("light", "status").out


def test_offline_only_what_is_trusted_is_shown(network: Published, home: Home) -> None:
    before = home.dllm("light", "status", "--json").data
    after = home.dllm("light", "status", "--offline", "--json").data
    assert (after["height"], after["hash"]) == (before["height"], before["hash"])
    assert after["problem"] == "nobody was asked"


def test_the_fingerprint_is_typed_by_a_person(network: Published, tmp_path: Path) -> None:
    bundle = network.publish()
    wrong = Terminal(tmp_path / "1", "network", "join", bundle["file"])
    wrong.until("Fingerprint: ")
    assert bundle["fingerprint"] not in wrong.seen, "what is shown would be agreed to unread"
    wrong.type("1111 2222 3333 4444")
    assert wrong.end() == 8
    right = Terminal(tmp_path / "2", "network", "join", bundle["file"])
    right.until("Fingerprint: ")
    right.type(bundle["fingerprint"])
    right.until("joined")
    assert right.end() == 0


def test_a_friend_is_invited_by_a_code(network: Published, home: Home, tmp_path: Path) -> None:
    with home.serving("network", "invite", "--address", "127.0.0.1") as (process, told):
        friend = Home(tmp_path / "friend")
        joined = friend.dllm("network", "join", told["code"].lower(), "--json").data
        assert (joined["chain_id"], joined["confirmed_by"]) == (network.chain_id, "the invitation")
        assert joined["fingerprint"] == told["fingerprint"]
        mistyped = told["code"][:-1] + ("0" if told["code"][-1] != "0" else "1")
        refused = friend.dllm("network", "join", mistyped, "--json")
        assert (refused.code, refused.error["code"]) == (2, "E_INVITATION_CODE")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
    over = friend.dllm("network", "join", told["code"], "--json")
    assert over.code == 3


def test_a_bundle_is_made_anew_and_joined_by_its_hash_or_fingerprint(
    network: Published, home: Home, tmp_path: Path
) -> None:
    file = tmp_path / "mine.bundle"
    made = home.dllm("network", "bundle", "--out", file, "--json").data
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    friend = Home(tmp_path / "friend")
    told = friend.dllm("network", "join", file, "--fingerprint", made["fingerprint"], "--json").data
    assert (told["trust_hash"], told["chain_id"]) == (made["trust_hash"], network.chain_id)
    nowhere = Home(tmp_path / "nowhere").dllm("network", "bundle", "--out", file, "--json")
    assert (nowhere.code, nowhere.error["code"]) == (6, "E_NOT_FOUND")


def test_the_proxy_serves_until_it_is_told_to_stop(network: Published, home: Home) -> None:
    listen = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
    with home.serving("light", "proxy", *listen) as (process, told):
        token_file = Path(told["token_file"])
        token = token_file.read_text().strip()
        assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
        assert token not in json.dumps(told)
        command_line = Path(f"/proc/{process.pid}/cmdline")
        assert not command_line.exists() or token not in command_line.read_text()
        request = urllib.request.Request(
            f"{told['url']}/header?height=1", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            assert json.load(answer)["result"]["header"]["chain_id"] == network.chain_id
        with urllib.request.urlopen(
            f"http://{told['metrics_address']}/metrics", timeout=DEADLINE_S
        ) as numbers:
            read = {one.name: one for one in text_string_to_metric_families(numbers.read().decode())}
        assert {name.removesuffix("_total") for name in documented("light")} == set(read)
        assert read["dllm_light_verified_height"].samples[0].value >= 1
        (call,) = read["dllm_light_requests"].samples
        assert (call.labels, call.value) == ({"method": "header", "outcome": "ok"}, 1)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{told['url']}/status", timeout=DEADLINE_S)
        assert refused.value.code == 401
        refused.value.close()
        taken = home.dllm("light", "proxy", "--listen", told["address"], "--json")
        assert (taken.code, "another program" in taken.error["hint"]) == (2, True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "192.168.1.1:1", "nonsense", "127.0.0.1:99999"])
def test_the_proxy_serves_this_machine_only(home: Home, listen: str) -> None:
    assert home.dllm("light", "proxy", "--listen", listen, "--json").code == 2


def test_trust_that_expired_is_renewed_against_two_nodes(tmp_path: Path) -> None:
    past = Home(tmp_path / "home", shift_s=-40 * DAY_S)
    now = Home(tmp_path / "home")
    with published(tmp_path, shift_s=-40 * DAY_S) as network:
        bundle = network.publish()
        joined = past.dllm("network", "join", bundle["file"], "--fingerprint", bundle["fingerprint"])
        assert joined.code == 0, joined
        old = past.dllm("light", "sync", "--json").data
        network.stop()
        network.start()
        network.sender.chain_id = network.chain_id
        asyncio.run(_one_more_block(network))
        status = now.dllm("light", "status")
        assert status.code == 0
        assert "too old" in status.out
        assert "dllm light trust refresh" in status.out
        assert not wide_lines(status.out, ("problem", "refused", "trusted header")), status.out
        blocked = now.dllm("light", "sync", "--json")
        assert (blocked.code, blocked.error["code"]) == (8, "E_ROOT_EXPIRED")
        alone = now.dllm("light", "trust", "refresh", "--json")
        assert (alone.code, "two different nodes" in alone.error["message"]) == (2, True)
        with node_before(network.url) as second:
            sources = ("--source", network.url, "--source", second)
            unasked = now.dllm("light", "trust", "refresh", *sources, "--json")
            assert (unasked.code, unasked.error["code"]) == (9, "E_DECLINED")
            wrong = now.dllm("light", "trust", "refresh", *sources, "--hash", "AB" * 32, "--json")
            assert (wrong.code, "expected was" in wrong.error["message"]) == (8, True)
            loose = now.dllm("light", "trust", "refresh", *sources, "--unlinked", "--json")
            assert (loose.code, "--height and --hash" in loose.error["hint"]) == (2, True)
            person = Terminal(now.folder, "light", "trust", "refresh", *sources)
            asked = person.until("Is it the same hash there? [y/N] ")
            assert second in asked
            person.type("y")
            person.until(f"hashes lead back to height {old['height']}")
            assert person.end() == 0
        assert now.dllm("light", "sync", "--json").data["height"] > old["height"]
