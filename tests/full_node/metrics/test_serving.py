"""A real node shows its numbers to a monitor, and to nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.documented_metrics import documented
from tests.full_node.processes import NodeProcess, Sender, call, dllm_node, init_with

ALICE = Sender.numbered(1)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    init_with(tmp_path / "n", [ALICE])
    started = NodeProcess.start(tmp_path / "n", "--metrics-listen", "127.0.0.1:0")
    yield started
    started.end()


def metrics_url(home: Path) -> str:
    address = json.loads((home / "rpc.json").read_bytes())["metrics_address"]
    return f"http://{address}/metrics"


async def test_every_documented_number_is_there_and_moves(node: NodeProcess, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as http:
        await call(http, node.url, "status")
        async with http.post(node.url, json={"jsonrpc": "2.0", "id": 1, "method": "no_such"}) as answer:
            assert "error" in await answer.json()
        async with http.get(metrics_url(tmp_path / "n")) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            text = await answer.text()
    read = {one.name: one for one in text_string_to_metric_families(text)}
    assert {name.removesuffix("_total") for name in documented("node", without="cometbft")} == set(read)
    assert read["dllm_node_height"].samples[0].value >= 1
    assert read["dllm_node_info"].samples[0].labels["engine"] == "solo"
    calls = {tuple(one.labels.values()): one.value for one in read["dllm_node_rpc_requests"].samples}
    assert calls[("status", "ok")] >= 1 and calls[("unknown", "-32601")] == 1
    assert read["dllm_node_state_bytes"].samples[0].value > 0


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}], ids=["host", "origin"]
)
async def test_a_page_of_a_stranger_sees_nothing(
    node: NodeProcess, tmp_path: Path, headers: dict[str, str]
) -> None:
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.get(metrics_url(tmp_path / "n")) as answer,
    ):
        assert answer.status == 403


def test_a_taken_address_is_said(node: NodeProcess, tmp_path: Path) -> None:
    init_with(tmp_path / "other", [ALICE])
    taken = metrics_url(tmp_path / "n").removeprefix("http://").removesuffix("/metrics")
    ended = dllm_node("start", "--home", tmp_path / "other", "--metrics-listen", taken)
    assert ended.returncode == 2 and "--metrics-listen" in ended.stderr


def test_the_log_has_the_form_and_level_of_flag_or_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init_with(tmp_path / "n", [ALICE])
    log = tmp_path / "n" / "logs" / "node.log"
    monkeypatch.setenv("DLLM_LOG_FORMAT", "logfmt")
    first = NodeProcess.start(tmp_path / "n")
    first.end()
    assert "level=info logger=full_node.node message=" in log.read_text()
    before = log.stat().st_size
    second = NodeProcess.start(tmp_path / "n", "--log-level", "error")
    second.end()
    assert log.stat().st_size == before
    refused = dllm_node("start", "--home", tmp_path / "n", "--log-level", "loud")
    assert refused.returncode == 2 and "loud" in refused.stderr
