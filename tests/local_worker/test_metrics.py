"""A worker process shows its numbers, all of those that are documented."""

from __future__ import annotations

from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.documented_metrics import documented
from tests.local_worker.network import Network


async def test_a_worker_shows_what_is_documented(tmp_path: Path, tiny_model: Path) -> None:
    network = await Network.start(tmp_path, tiny_model, workers=1)
    try:
        worker = await network.worker(0, "--metrics-listen", "127.0.0.1:0")
        try:
            url = f"http://{worker.ready['metrics_address']}/metrics"
            async with aiohttp.ClientSession() as http, http.get(url) as answer:
                read = {one.name: one for one in text_string_to_metric_families(await answer.text())}
        finally:
            await worker.end_lifeline()
    finally:
        await network.close()
    assert {name.removesuffix("_total") for name in documented("worker")} == set(read)
    states = {one.labels["state"]: one.value for one in read["dllm_worker_state"].samples}
    assert [state for state, holds in states.items() if holds] == ["serving"]
    assert read["dllm_worker_info"].samples[0].labels["model"] == "tiny-model"
