"""Metrics beside a light node are for this machine, and for no page in a browser."""

from __future__ import annotations

from collections.abc import Iterable

import aiohttp
import pytest

from dllm_protocol.exposition import Family, gauge
from light_node.metrics import MetricsRefused, MetricsServer


async def collect() -> Iterable[Family]:
    return [gauge("one", "", 1)]


async def test_a_monitor_reads_and_a_page_does_not() -> None:
    async with MetricsServer("127.0.0.1", 0, collect) as address, aiohttp.ClientSession() as http:
        url = f"http://{address}/metrics"
        async with http.get(url) as answer:
            assert (answer.status, await answer.text()) == (200, "# HELP one \n# TYPE one gauge\none 1\n")
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Host": "[::1"}):
            async with http.get(url, headers=headers) as answer:
                assert answer.status in (400, 403)
        async with http.get(f"http://{address}/other") as answer:
            assert answer.status == 404


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "example.org"])
async def test_other_machines_are_not_served(host: str) -> None:
    with pytest.raises(MetricsRefused, match="loopback"):
        await MetricsServer(host, 0, collect).__aenter__()


async def test_a_taken_port_is_said() -> None:
    async with MetricsServer("127.0.0.1", 0, collect) as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(MetricsRefused, match="cannot listen"):
            await MetricsServer("127.0.0.1", port, collect).__aenter__()
