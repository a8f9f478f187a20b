"""Questions wait for a node that is being started again; a transaction is handed in once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dllm_chat.embedded import patient_source
from dllm_chat.embedded.patient_source import PatientSource
from dllm_chat.embedded.wire import SupervisorLost
from light_node.answers import BroadcastAnswer
from light_node.errors import SourceRefusal, SourceUnreachable
from light_node.source import RpcSource


class Node(RpcSource):
    """A source that fails a few times before it answers."""

    def __init__(self, failures: list[Exception]) -> None:
        super().__init__("ws://127.0.0.1:1/websocket")
        self.failures = failures
        self.asked = 0

    async def tx(self, tx_hash: bytes) -> None:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)

    async def broadcast_tx_sync(self, tx: bytes) -> BroadcastAnswer:
        self.asked += 1
        raise self.failures.pop(0)

    async def new_heights(self) -> AsyncIterator[int]:
        yield 7


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_source, "PAUSE_S", 0.001)


async def test_a_question_is_asked_again_until_the_node_is_back() -> None:
    node = Node([SourceUnreachable("gone"), SourceUnreachable("still gone")])
    assert await PatientSource(node, lambda: False).tx(b"") is None
    assert node.asked == 3


async def test_what_the_node_says_is_passed_on_at_once() -> None:
    node = Node([SourceRefusal("no")])
    with pytest.raises(SourceRefusal):
        await PatientSource(node, lambda: False).tx(b"")
    assert node.asked == 1


async def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_source, "PATIENCE_S", 0.01)
    node = Node([SourceUnreachable("gone") for _ in range(1000)])
    with pytest.raises(SourceUnreachable, match="gone"):
        await PatientSource(node, lambda: False).tx(b"")
    assert 1 < node.asked < 1000


async def test_without_a_supervisor_nobody_is_waited_for() -> None:
    node = Node([SourceUnreachable("gone")])
    with pytest.raises(SupervisorLost, match="has ended"):
        await PatientSource(node, lambda: True).tx(b"")


async def test_a_transaction_is_handed_in_once_whatever_happens() -> None:
    node = Node([SourceUnreachable("gone")])
    with pytest.raises(SourceUnreachable):
        await PatientSource(node, lambda: False).broadcast_tx_sync(b"tx")
    assert node.asked == 1


async def test_announcements_pass_through() -> None:
    assert [height async for height in PatientSource(Node([]), lambda: False).new_heights()] == [7]
