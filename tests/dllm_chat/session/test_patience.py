"""How long a client waits for a provider: for a slow one that lives, for a dead one, for one that only chatters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from dllm_chat.session import leg_wire, patience
from dllm_chat.session.front_desk import LegFailed
from dllm_chat.session.leg import OpenLeg
from dllm_protocol.encoding import Record
from dllm_protocol.messages import ROW_PROMPT, Linked
from dllm_protocol.session.provider import DecodeRows, Order
from light_node.channel.errors import ChannelTimedOut
from tests.dllm_chat.session.providers import MemoryChannel, Provider, connect, make_ledger
from tests.dllm_chat.session.words import byte_ids

PROMPT = byte_ids(b"who are you, and where do you come from?\n")


class SlowChannel(MemoryChannel):
    """A channel on which time passes."""

    decode_s = 0.0
    """What a request for rows takes."""
    is_mute = False
    """Whether the provider does nothing any more."""
    chatter: Record | None = None
    """What comes instead of answers, again and again."""

    def _carry_out(self, order: Order) -> None:
        if self.is_mute:
            return
        if isinstance(order, DecodeRows) and self.decode_s:
            self._later = asyncio.get_running_loop().call_later(self.decode_s, super()._carry_out, order)
        else:
            super()._carry_out(order)

    async def receive(self, timeout_ms: int | None = None) -> tuple[Record, ...]:
        assert timeout_ms is not None
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_ms / 1000
        while loop.time() < until_s:
            await asyncio.sleep(0.005)
            if self.chatter is not None:
                return (self.chatter,)
            if self._answers:
                return await super().receive()
        raise ChannelTimedOut("nothing came")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(leg_wire, "BEAT_S", 0.05)
    monkeypatch.setattr(leg_wire, "SILENT_S", 0.15)
    monkeypatch.setattr(patience, "ANSWER_TIMEOUT_S", 0.5)
    yield


def slow() -> tuple[OpenLeg, SlowChannel]:
    """A leg over a slow channel."""
    opened = connect(Provider(1), make_ledger())
    channel = opened._wire._channel
    channel.__class__ = SlowChannel
    assert isinstance(channel, SlowChannel)
    return opened, channel


async def test_a_provider_that_takes_its_time_for_a_prompt_is_waited_for_as_long_as_it_lives() -> None:
    opened, channel = slow()
    channel.decode_s = 1.0
    patience_s = patience.patience_s(len(PROMPT))
    assert patience_s > 2 * channel.decode_s > 2 * patience.ANSWER_TIMEOUT_S
    row = await opened.decode(PROMPT, kind=ROW_PROMPT, top_k=4)
    assert row.position == len(PROMPT) - 1
    assert opened.round_trip_s is None, "a sign of life is no measurement"


async def test_a_single_row_is_waited_for_less_long() -> None:
    opened, channel = slow()
    await opened.decode(PROMPT, kind=ROW_PROMPT, top_k=4)
    channel.decode_s = 2 * patience.ANSWER_TIMEOUT_S
    with pytest.raises(LegFailed, match=r"did not answer within 0\.5 s"):
        await opened.decode_next(301, 4)


async def test_a_provider_that_gives_no_sign_of_life_is_given_up_long_before_that() -> None:
    opened, channel = slow()
    channel.is_mute = True
    began_s = asyncio.get_running_loop().time()
    with pytest.raises(LegFailed, match="no sign of life"):
        await opened.decode(PROMPT, kind=ROW_PROMPT, top_k=4)
    assert asyncio.get_running_loop().time() - began_s < patience.patience_s(len(PROMPT))


async def test_whoever_only_chatters_wins_no_time() -> None:
    opened, channel = slow()
    await opened.decode(PROMPT, kind=ROW_PROMPT, top_k=4)
    channel.chatter = Linked(1, 0, 0, 0)
    async with asyncio.timeout(60):
        with pytest.raises(LegFailed, match=r"did not answer within 0\.5 s"):
            await opened.decode_next(301, 4)
