"""How fast streams are forwarded: what may pass at once, what has to wait, and that nothing is dropped for it."""

from __future__ import annotations

import pytest

from dllm_protocol.relay import MESSAGE_COST_BYTES, name_address
from full_node.relay.effects import Wait
from full_node.relay.limits import PACE_BYTES_PER_S_MIN, RelayLimits, RelayRefused
from full_node.relay.pacing import BURST_S, Bucket, Pacing
from light_node.relay.connection import RelayStream, dial
from tests.full_node.relay.driver import Driver
from tests.full_node.relay.rig import NAME, running_relay

KIB = 1024
PACE = PACE_BYTES_PER_S_MIN


def test_a_burst_passes_and_what_is_beyond_it_waits_its_time() -> None:
    bucket = Bucket(1000, 0.0, 0)
    assert bucket.take(BURST_S * 1000, 0) == 0
    assert bucket.take(500, 0) == 500
    assert bucket.take(500, 500) == 500, "half a second paid the first 500 back"
    assert bucket.take(1, 10_000) == 0, "after a silence it is full again"


def test_a_message_longer_than_a_bucket_passes_whole_and_is_waited_for() -> None:
    assert Bucket(1000, 0.0, 0).take(10_000, 0) == 8_000


def test_over_time_no_more_passes_than_the_pace() -> None:
    bucket, now_ms, passed = Bucket(7_000, 0.0, 0), 0, 0
    while now_ms < 60_000:
        now_ms += bucket.take(333, now_ms)
        passed += 333
    assert 7_000 * 60 <= passed <= 7_000 * (60 + BURST_S) + 333


def test_streams_of_one_remote_share_its_pace_and_those_of_others_do_not() -> None:
    pacing = Pacing(stream_bytes_per_s=1000, remote_bytes_per_s=1500)
    one, two, three = (pacing.new_stream(0) for _ in range(3))
    assert pacing.take(one, "a", 2000, 0) == 0
    assert pacing.take(two, "a", 2000, 0) > 0, "the second stream's own bucket was full, its remote's was not"
    assert pacing.take(three, "b", 2000, 0) == 0


def test_remotes_are_forgotten_when_their_buckets_are_full_again() -> None:
    pacing = Pacing(1000, 1000)
    pacing.take(pacing.new_stream(0), "a", 1500, 0)
    pacing.forget(1400)
    assert len(pacing) == 1
    pacing.forget(1500)
    assert len(pacing) == 0


def test_who_is_too_fast_is_told_to_wait_and_is_forwarded_all_the_same() -> None:
    driver = Driver(RelayLimits(stream_bytes_per_s=PACE, remote_bytes_per_s=PACE))
    _, dialer, answerer = driver.stream()
    message = bytes(BURST_S * PACE + 1000 - MESSAGE_COST_BYTES)
    effects = driver.relay.received(dialer, message, driver.now_ms)
    driver.do([one for one in effects if not isinstance(one, Wait)])
    assert driver.sent[answerer][-1] == message
    assert [one for one in effects if isinstance(one, Wait)] == [Wait(dialer, 16)]
    assert driver.relay.counts.waits == 1


def test_both_directions_of_a_stream_share_its_pace() -> None:
    driver = Driver(RelayLimits(stream_bytes_per_s=PACE, remote_bytes_per_s=100 * PACE))
    _, dialer, answerer = driver.stream()
    driver.say(dialer, bytes(BURST_S * PACE - MESSAGE_COST_BYTES))
    effects = driver.relay.received(answerer, bytes(PACE), driver.now_ms)
    assert any(isinstance(one, Wait) and one.peer == answerer for one in effects)


@pytest.mark.parametrize("name", ["stream_bytes_per_s", "remote_bytes_per_s"])
def test_a_pace_at_which_the_longest_message_would_seem_lost_is_refused(name: str) -> None:
    with pytest.raises(RelayRefused, match=name):
        RelayLimits(**{name: PACE_BYTES_PER_S_MIN - 1}).check()


async def test_a_fast_sender_is_held_back_not_cut_and_everything_arrives_in_order() -> None:
    got: list[bytes] = []

    async def take(stream: RelayStream) -> None:
        while (message := await stream.read()) is not None:
            got.append(message[:1])
        await stream.end()

    limits = RelayLimits(stream_bytes_per_s=256 * KIB, remote_bytes_per_s=256 * KIB)
    async with running_relay(limits) as running, running.listening(take):
        stream = await dial(running.url, name_address(NAME))
        for number in range(10):
            await stream.send(bytes([number]) + bytes(64 * KIB))
        await stream.end()
        assert await stream.read() is None
        assert got == [bytes([number]) for number in range(10)]
        assert running.relay.counts.waits >= 1
        await stream.close()


async def test_a_sender_that_waits_does_not_hold_up_the_relay_s_end() -> None:
    async def take(stream: RelayStream) -> None:
        while await stream.read() is not None:
            pass

    limits = RelayLimits(stream_bytes_per_s=PACE, remote_bytes_per_s=PACE)
    async with running_relay(limits) as running, running.listening(take):
        stream = await dial(running.url, name_address(NAME))
        await stream.send(bytes(1 << 20))
        await stream.send(bytes(1 << 20))
        await running.server.stop()
        assert await stream.wait_closed(10_000)
        assert running.relay.connections == 0
