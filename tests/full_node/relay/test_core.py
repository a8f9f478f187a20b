"""The state table of docs/protocol/relay.md, line by line, and that no order of events breaks it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllm_protocol.encoding import Record
from dllm_protocol.relay import (
    CONTROL_BYTES_MAX,
    END,
    MESSAGE_COST_BYTES,
    Answer,
    CloseReason,
    Decline,
    Dial,
    FromRelay,
    Incoming,
    ListenByKey,
    ListenByName,
    Listening,
    Opened,
    ToRelay,
    Welcome,
    key_address,
    name_address,
)
from dllm_protocol.signing import SeedSigner
from full_node.relay.core import State
from full_node.relay.limits import RelayLimits
from tests.full_node.relay.driver import NAME, Driver

KEY = SeedSigner(b"\x21" * 32)
TICKET = bytes(16)
REQUESTS: tuple[Record | bytes | str, ...] = (
    ListenByName(NAME),
    ListenByKey(KEY.public_key, bytes(64)),
    Dial(bytes(32)),
    Answer(TICKET),
    Decline(TICKET),
    b"",
    b"opaque",
    bytes(CONTROL_BYTES_MAX + 1),
    END,
    FromRelay(Welcome(bytes(32))).encode(),
)


def test_every_connection_is_welcomed_with_a_nonce_of_its_own() -> None:
    driver = Driver()
    welcomes = [driver.said(driver.open()) for _ in range(3)]
    assert all(isinstance(one, Welcome) for one in welcomes)
    assert len(set(map(str, welcomes))) == 3


# New


@pytest.mark.parametrize(
    "request_", [Decline(TICKET), b"", b"opaque", bytes(CONTROL_BYTES_MAX + 1), END, "Dial"], ids=range(6)
)
def test_a_new_connection_listens_dials_or_answers_and_nothing_else(request_: Record | bytes | str) -> None:
    driver = Driver()
    peer = driver.open()
    driver.say(peer, request_)
    assert driver.closed[peer] is CloseReason.BROKEN


def test_a_new_connection_that_says_nothing_is_closed() -> None:
    driver = Driver()
    peer = driver.open()
    driver.tick(driver.limits.handshake_ms)
    assert peer not in driver.closed
    driver.tick(1)
    assert driver.closed[peer] is CloseReason.LATE


# Listening


def test_whoever_knows_a_name_listens_until_its_time_is_over() -> None:
    driver = Driver()
    peer = driver.listener()
    assert driver.said(peer) == Listening(driver.limits.name_listen_ms)
    assert (driver.relay.state_of(peer), driver.relay.listeners) == (State.LISTENING, {"key": 0, "name": 1})
    driver.tick(driver.limits.name_listen_ms + 1)
    assert driver.closed[peer] is CloseReason.EXPIRED
    assert driver.relay.listeners == {"key": 0, "name": 0}


def test_a_name_that_is_taken_stays_with_whom_it_is() -> None:
    driver = Driver()
    first, second = driver.listener(), driver.listener()
    assert driver.closed == {second: CloseReason.TAKEN}
    driver.leave(first)
    assert driver.said(driver.listener()) == Listening(driver.limits.name_listen_ms)


def test_whoever_knows_an_address_only_cannot_listen_there() -> None:
    driver = Driver()
    driver.listener(name_address(NAME))
    dialer = driver.dialer(NAME)
    assert driver.closed[dialer] is CloseReason.NOBODY


def test_a_key_is_proved_by_signing_this_connections_nonce_under_this_relays_name() -> None:
    driver = Driver()
    peer = driver.keyed(KEY)
    assert driver.said(peer) == Listening(0)
    driver.tick(10**9)
    assert driver.relay.state_of(peer) is State.LISTENING, "a key listens as long as it likes"
    elsewhere = driver.keyed(KEY, relay="evil.example:443")
    assert driver.closed == {elsewhere: CloseReason.NOT_PROVED}
    replayed = driver.open()
    raw = ListenByKey(KEY.public_key, bytes(64))
    driver.say(replayed, raw)
    assert driver.closed[replayed] is CloseReason.NOT_PROVED
    assert driver.relay.state_of(peer) is State.LISTENING


def test_a_signature_of_another_connection_proves_nothing() -> None:
    from dllm_protocol.relay import listen_by_key
    from tests.full_node.relay.driver import RELAY

    driver = Driver()
    first, second = driver.open(), driver.open()
    welcome = driver.said(first)
    assert isinstance(welcome, Welcome)
    driver.say(second, listen_by_key(KEY, RELAY, welcome.nonce))
    assert driver.closed == {second: CloseReason.NOT_PROVED}


def test_a_key_that_comes_back_replaces_its_old_connection_and_its_streams_go_on() -> None:
    driver = Driver()
    old = driver.keyed(KEY)
    dialer, waiting = driver.open(), driver.open()
    driver.say(dialer, Dial(key_address(KEY.public_key)))
    answerer = driver.open()
    driver.say(answerer, Answer(driver.ring(old)))
    driver.say(waiting, Dial(key_address(KEY.public_key)))
    new = driver.keyed(KEY)
    assert driver.closed == {old: CloseReason.REPLACED, waiting: CloseReason.NOBODY}
    driver.say(dialer, b"still there")
    assert driver.sent[answerer][-1] == b"still there"
    later = driver.open()
    driver.say(later, Dial(key_address(KEY.public_key)))
    assert isinstance(driver.said(new), Incoming)


@pytest.mark.parametrize("request_", [one for one in REQUESTS if not isinstance(one, Decline)], ids=range(9))
def test_a_listener_that_says_anything_but_decline_is_closed(request_: Record | bytes | str) -> None:
    driver = Driver()
    peer = driver.listener()
    driver.say(peer, request_)
    assert driver.closed[peer] is CloseReason.BROKEN


# Waiting


def test_nobody_listens() -> None:
    driver = Driver()
    assert driver.closed[driver.dialer()] is CloseReason.NOBODY


def test_a_dialer_waits_and_says_nothing() -> None:
    for request in REQUESTS:
        driver = Driver()
        driver.listener()
        dialer = driver.dialer()
        driver.say(dialer, request)
        assert driver.closed[dialer] is CloseReason.BROKEN


def test_a_dialer_waits_no_longer_than_it_was_told() -> None:
    driver = Driver()
    listener = driver.listener()
    dialer = driver.dialer()
    assert driver.said(listener) == Incoming(driver.ring(listener), driver.limits.answer_ms)
    driver.tick(driver.limits.answer_ms + 1)
    assert driver.closed == {dialer: CloseReason.LATE}
    late = driver.open()
    driver.say(late, Answer(driver.ring(listener)))
    assert driver.closed[late] is CloseReason.NOBODY


def test_a_listener_declines_its_own_ring_only() -> None:
    driver = Driver()
    listener, other = driver.listener(), driver.listener(NAME + b"!")
    dialer = driver.dialer()
    driver.say(other, Decline(driver.ring(listener)))
    assert driver.closed == {}
    driver.say(listener, Decline(driver.ring(listener)))
    assert driver.closed == {dialer: CloseReason.DECLINED}
    assert driver.relay.state_of(other) is State.LISTENING


def test_when_the_listener_goes_so_do_those_who_wait() -> None:
    driver = Driver()
    listener = driver.listener()
    dialer = driver.dialer()
    driver.leave(listener, in_order=False)
    assert driver.closed == {dialer: CloseReason.NOBODY}


def test_when_the_dialer_goes_its_ticket_is_worth_nothing() -> None:
    driver = Driver()
    listener = driver.listener()
    driver.leave(driver.dialer())
    answerer = driver.open()
    driver.say(answerer, Answer(driver.ring(listener)))
    assert driver.closed == {answerer: CloseReason.NOBODY}


def test_a_ticket_counts_once() -> None:
    driver = Driver()
    listener, *_ = driver.stream()
    again = driver.open()
    driver.say(again, Answer(driver.ring(listener)))
    assert driver.closed == {again: CloseReason.NOBODY}


# Joined


def test_both_sides_are_told_and_then_hear_each_other_byte_for_byte() -> None:
    driver = Driver()
    listener, dialer, answerer = driver.stream()
    opened = Opened(driver.limits.idle_ms, driver.limits.stream_ms, driver.limits.stream_bytes)
    assert driver.said(dialer) == driver.said(answerer) == opened
    assert driver.joined == {dialer, answerer}
    looks_like_a_request = ToRelay(Dial(bytes(32))).encode()
    for message in (b"", b"\x00\xff", looks_like_a_request, bytes(1 << 20)):
        driver.say(dialer, message)
        assert driver.sent[answerer][-1] == message
        driver.say(answerer, message)
        assert driver.sent[dialer][-1] == message
    assert driver.relay.counts.forwarded_messages == 8
    assert driver.relay.state_of(listener) is State.LISTENING


def test_one_side_ends_and_still_hears_the_other() -> None:
    driver = Driver()
    _, dialer, answerer = driver.stream()
    driver.say(dialer, END)
    assert driver.sent[answerer][-1] == END
    driver.say(answerer, b"more")
    assert driver.sent[dialer][-1] == b"more"
    driver.say(answerer, END)
    assert driver.sent[dialer][-1] == END
    assert driver.closed == {dialer: CloseReason.ENDED, answerer: CloseReason.ENDED}
    assert driver.relay.streams == 0


@pytest.mark.parametrize("message", [b"more", END])
def test_nothing_is_sent_behind_the_end(message: bytes | str) -> None:
    driver = Driver()
    _, dialer, answerer = driver.stream()
    driver.say(dialer, END)
    driver.say(dialer, message)
    assert driver.closed == {dialer: CloseReason.BROKEN, answerer: CloseReason.PEER_LOST}


def test_other_text_than_the_end_is_not_for_streams() -> None:
    driver = Driver()
    _, dialer, answerer = driver.stream()
    driver.say(answerer, "END")
    assert driver.closed == {answerer: CloseReason.BROKEN, dialer: CloseReason.PEER_LOST}


@pytest.mark.parametrize(
    ("in_order", "reason"), [(True, CloseReason.PEER_ENDED), (False, CloseReason.PEER_LOST)]
)
def test_one_side_goes_and_the_other_hears_how(in_order: bool, reason: CloseReason) -> None:
    for side in (1, 2):
        driver = Driver()
        stream = driver.stream()
        driver.leave(stream[side], in_order=in_order)
        assert driver.closed == {stream[3 - side]: reason}
        driver.leave(stream[3 - side])
        assert driver.relay.connections == 1


def test_a_silent_stream_is_cut_and_one_that_talks_is_not() -> None:
    driver = Driver()
    _, dialer, answerer = driver.stream()
    for _ in range(3):
        driver.tick(driver.limits.idle_ms)
        driver.say(dialer, b"still here")
    assert driver.closed == {}
    driver.tick(driver.limits.idle_ms + 1)
    assert driver.closed == {dialer: CloseReason.IDLE, answerer: CloseReason.IDLE}


def test_a_stream_has_a_longest_life() -> None:
    driver = Driver(RelayLimits(stream_ms=1_000))
    _, dialer, answerer = driver.stream()
    driver.tick(1_000)
    assert driver.closed == {}
    driver.tick(1)
    assert driver.closed == {dialer: CloseReason.EXPIRED, answerer: CloseReason.EXPIRED}


def test_a_stream_carries_so_many_bytes_both_ways_together() -> None:
    driver = Driver(RelayLimits(stream_bytes=3 * MESSAGE_COST_BYTES + 10))
    _, dialer, answerer = driver.stream()
    driver.say(dialer, b"123456")
    driver.say(answerer, b"1234")
    driver.say(dialer, b"")
    assert driver.closed == {}
    driver.say(answerer, b"")
    assert driver.closed == {dialer: CloseReason.SPENT, answerer: CloseReason.SPENT}


def test_who_does_not_take_what_was_sent_is_cut_with_the_other_side() -> None:
    driver = Driver()
    _, dialer, answerer = driver.stream()
    driver.do(driver.relay.stalled(answerer))
    assert driver.closed == {dialer: CloseReason.STALLED, answerer: CloseReason.STALLED}


# Bounds


def test_the_relay_takes_so_many_connections() -> None:
    driver = Driver(RelayLimits(connections=4, listeners=1, streams=1))
    peers = [driver.open(f"192.0.2.{number}") for number in range(5)]
    assert driver.closed == {peers[4]: CloseReason.FULL}


def test_one_remote_opens_so_many_connections_at_once_and_a_minute() -> None:
    driver = Driver(RelayLimits(connections_per_remote=2, opens_per_minute=4))
    peers = [driver.open() for _ in range(3)]
    assert driver.closed == {peers[2]: CloseReason.TOO_MANY}
    other = driver.open("198.51.100.1")
    assert other not in driver.closed
    for peer in peers[:2]:
        driver.leave(peer)
    for _ in range(2):
        driver.leave(driver.open())
    assert driver.closed[driver.open()] is CloseReason.TOO_MANY
    driver.tick(15_001)
    assert driver.open() not in driver.closed


def test_answers_count_among_the_listeners_streams_and_not_among_its_remotes_connections() -> None:
    driver = Driver(RelayLimits(connections_per_remote=2, opens_per_minute=5, streams_per_listener=8))
    listener = driver.listener()
    for number in range(8):
        driver.dialer(remote=f"198.51.100.{number}")
        answerer = driver.open("192.0.2.1")
        driver.say(answerer, Answer(driver.ring(listener)))
    assert driver.relay.streams == 8
    last = driver.dialer(remote="198.51.100.99")
    assert driver.closed == {last: CloseReason.DECLINED}


def test_the_relay_takes_so_many_listeners_and_streams() -> None:
    driver = Driver(RelayLimits(listeners=1, streams=1))
    driver.listener()
    assert driver.closed[driver.listener(NAME + b"!")] is CloseReason.FULL
    waiting = driver.dialer()
    assert driver.closed[driver.dialer()] is CloseReason.FULL
    driver.leave(waiting)
    assert driver.dialer() not in driver.closed


def test_one_remote_cannot_fill_a_listener() -> None:
    limits = RelayLimits()
    assert limits.connections_per_remote < limits.streams_per_listener


def test_stopping_tells_everybody() -> None:
    driver = Driver()
    peers = {*driver.stream(), driver.open()}
    driver.do(driver.relay.stop())
    assert driver.closed == dict.fromkeys(peers, CloseReason.GOING_AWAY)
    assert driver.relay.connections == 0


EVENTS = st.one_of(
    st.tuples(st.just("open"), st.integers(0, 3)),
    st.tuples(st.just("listen"), st.integers(0, 9)),
    st.tuples(st.just("dial"), st.integers(0, 9)),
    st.tuples(st.just("answer"), st.integers(0, 9)),
    st.tuples(st.just("decline"), st.integers(0, 9)),
    st.tuples(st.just("data"), st.integers(0, 9)),
    st.tuples(st.just("end"), st.integers(0, 9)),
    st.tuples(st.just("leave"), st.integers(0, 9)),
    st.tuples(st.just("lose"), st.integers(0, 9)),
    st.tuples(st.just("stall"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.integers(1, 20_000)),
)


@given(st.lists(EVENTS, max_size=80))
@settings(max_examples=200)
def test_whatever_happens_the_relay_forgets_nobody_and_joins_in_pairs(events: list[tuple[str, int]]) -> None:
    driver = Driver(
        RelayLimits(connections=9, connections_per_remote=4, listeners=3, streams=3, streams_per_listener=2)
    )
    gone: set[int] = set()
    peers: list[int] = []
    tickets = [TICKET]
    for what, number in events:
        peer = peers[number % len(peers)] if peers else 0
        match what:
            case "open":
                peers.append(driver.open(f"192.0.2.{number}"))
            case "listen":
                driver.say(peer, ListenByName(NAME + bytes([number % 2])))
            case "dial":
                driver.say(peer, Dial(name_address(NAME + bytes([number % 2]))))
            case "answer":
                driver.say(peer, Answer(tickets[-1 - number % len(tickets)]))
            case "decline":
                driver.say(peer, Decline(tickets[-1 - number % len(tickets)]))
            case "data":
                driver.say(peer, b"opaque")
            case "end":
                driver.say(peer, END)
            case "leave" | "lose":
                driver.leave(peer, in_order=what == "leave")
                gone.add(peer)
            case "stall":
                driver.do(driver.relay.stalled(peer))
            case _:
                driver.tick(number)
        for raw in [message for sent in driver.sent.values() for message in sent]:
            if isinstance(raw, bytes) and raw != b"opaque":
                message = FromRelay.decode(raw).message
                if isinstance(message, Incoming) and message.ticket not in tickets:
                    tickets.append(message.ticket)
        alive = [one for one in peers if one not in driver.closed and one not in gone]
        assert driver.relay.connections == len(alive)
        states = [driver.relay.state_of(one) for one in alive]
        assert None not in states
        assert states.count(State.JOINED) == 2 * driver.relay.streams
        assert sum(driver.relay.listeners.values()) == states.count(State.LISTENING) <= 3
        assert states.count(State.WAITING) + driver.relay.streams <= 3
    driver.do(driver.relay.stop())
    driver.tick(120_000)
    assert driver.relay.is_empty
