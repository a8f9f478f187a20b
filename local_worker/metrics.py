"""The worker's numbers as families of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from dllm_protocol.exposition import Family, MetricKind, Sample, counter, gauge
from local_worker.relays import OPEN
from local_worker.status import STATES, Status


def worker_families(status: Status, rows: int, waiting_calls: int, answering: int) -> Iterator[Family]:
    """Every family of a worker.

    Args:
        rows: decoded since the start.
        waiting_calls: calls that the engine process has not answered yet.
        answering: sessions in the middle of an answer.
    """
    about = tuple(
        Sample(
            1,
            {
                "chain_id": status.chain_id,
                "model": one.model,
                "layers": f"{one.layers[0]}:{one.layers[1]}",
                "provider": one.provider,
            },
        )
        for one in status.slices
    )
    yield Family("dllm_worker_info", MetricKind.GAUGE, "What each of its slices is; always 1.", about)
    states = tuple(Sample(float(status.state == state), {"state": state}) for state in STATES)
    yield Family("dllm_worker_state", MetricKind.GAUGE, "1 for the state that it is in, else 0.", states)
    doors = tuple(
        Sample(float(state == OPEN), {"endpoint": endpoint})
        for endpoint, state in status.endpoint_states.items()
    )
    yield Family(
        "dllm_worker_endpoint_open",
        MetricKind.GAUGE,
        "1 for an endpoint that takes clients now, else 0.",
        doors,
    )
    yield gauge("dllm_worker_sessions", "Sessions that are connected.", status.sessions)
    yield gauge("dllm_worker_answering_sessions", "Those in the middle of an answer.", answering)
    yield gauge(
        "dllm_worker_engine_waiting_calls", "Calls that the engine has not answered yet.", waiting_calls
    )
    yield counter("dllm_worker_rows_total", "Rows (tokens in and out) decoded since the start.", rows)
    yield gauge(
        "dllm_worker_rows_per_second", "Rows a second over the last ten seconds.", status.tokens_per_s
    )
    yield gauge(
        "dllm_worker_unclaimed_udllm", "Earned with vouchers that no claim was made for yet.",
        status.earned_unclaimed_udllm,
    )  # fmt: skip
    yield gauge("dllm_worker_claimed_udllm", "Claimed on the chain, over all time.", status.claimed_udllm)
    yield counter(
        "dllm_worker_engine_restarts_total",
        "How often the engine process was started anew.",
        status.engine_restarts,
    )
    yield counter(
        "dllm_worker_self_tests_total",
        "Self-tests that were passed since the start; a failed one ends the worker.",
        status.self_tests,
    )
