"""A relay's numbers as families of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from dllm_protocol.exposition import Family, MetricKind, Sample, counter, gauge
from full_node.relay.core import Relay


def relay_families(version: str, relay: Relay) -> Iterator[Family]:
    """Every family of a relay; none says who is connected."""
    counts = relay.counts
    yield Family(
        "dllm_relay_info",
        MetricKind.GAUGE,
        "Which relay this is; always 1.",
        (Sample(1, {"version": version}),),
    )
    yield gauge("dllm_relay_connections", "Connections that stand.", relay.connections)
    listening = tuple(Sample(count, {"by": by}) for by, count in relay.listeners.items())
    yield Family("dllm_relay_listeners", MetricKind.GAUGE, "Who listens, by key or by name.", listening)
    yield gauge("dllm_relay_streams", "Streams that stand.", relay.streams)
    yield counter("dllm_relay_streams_total", "Streams since the start.", counts.streams)
    yield counter("dllm_relay_forwarded_messages_total", "Messages forwarded.", counts.forwarded_messages)
    yield counter("dllm_relay_forwarded_bytes_total", "Their bytes.", counts.forwarded_bytes)
    yield counter(
        "dllm_relay_waits_total",
        "Times that a sender was not read for a while, because it had sent faster than it may.",
        counts.waits,
    )
    closed = tuple(
        Sample(count, {"reason": reason.name.lower()}) for reason, count in sorted(counts.closed.items())
    )
    yield Family(
        "dllm_relay_closed_total", MetricKind.COUNTER, "Connections that the relay closed, by reason.", closed
    )
