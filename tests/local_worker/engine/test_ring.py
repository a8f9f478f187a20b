"""When the first stage is told the likeliest token: after how many good ones, and how often after bad ones."""

from __future__ import annotations

from local_worker.engine.ring import MAX_STREAK, MIN_STREAK, Ring

LANE = 3


class Client:
    """One that asks for a row after the other: the likeliest token each time, or another one."""

    def __init__(self, ring: Ring, lane: int = LANE, *, request: int = 20, position: int = 50) -> None:
        self.ring = ring
        self.lane = lane
        self.request, self.position = request, position
        ring.asked(lane, request, position)

    def agrees(self, rows: int = 1) -> None:
        self._asks(rows, 1)

    def differs(self, rows: int = 1) -> None:
        self._asks(rows, 2)

    def _asks(self, rows: int, step: int) -> None:
        for _ in range(rows):
            self.request, self.position = self.request + step, self.position + 1
            self.ring.asked(self.lane, self.request, self.position)

    def agrees_until_told(self) -> int:
        """How many rows in a row it takes."""
        rows = 0
        while not self.ring.tells(self.lane):
            self.agrees()
            rows += 1
            assert rows <= MAX_STREAK
        return rows


def test_nothing_is_told_before_the_last_few_tokens_were_the_likeliest() -> None:
    ring = Ring()
    assert not ring.tells(LANE)
    client = Client(ring)
    assert not ring.tells(LANE)
    client.agrees(MIN_STREAK - 1)
    assert not ring.tells(LANE)
    client.agrees()
    assert ring.tells(LANE)
    client.agrees()
    assert ring.tells(LANE), "and so it goes on"


def test_another_token_begins_the_count_anew() -> None:
    client = Client(Ring())
    client.agrees(MIN_STREAK - 1)
    client.differs()
    assert client.agrees_until_told() == MIN_STREAK, "nothing was told in vain: no more than that"


def test_each_token_told_in_vain_doubles_how_many_it_takes() -> None:
    client = Client(Ring())
    client.agrees_until_told()
    needed = MIN_STREAK
    while needed < MAX_STREAK:
        client.differs()
        needed *= 2
        assert client.agrees_until_told() == needed
    client.differs()
    assert client.agrees_until_told() == MAX_STREAK, "there is a longest streak"


def test_as_many_hits_in_a_row_halve_it() -> None:
    client = Client(Ring())
    client.agrees_until_told()
    for needed in (2 * MIN_STREAK, 4 * MIN_STREAK):
        client.differs()
        assert client.agrees_until_told() == needed
    for _ in range(4 * MIN_STREAK):
        client.agrees()
        assert client.ring.tells(LANE)
    client.differs()  # a miss doubles what the hits have halved
    assert client.agrees_until_told() == 4 * MIN_STREAK


def test_hits_before_a_miss_count_for_nothing_after_it() -> None:
    client = Client(Ring())
    client.agrees_until_told()
    client.differs()
    client.agrees_until_told()
    for _ in range(2 * MIN_STREAK - 1):
        client.agrees()
        assert client.ring.tells(LANE)
    client.differs()
    assert client.agrees_until_told() == 4 * MIN_STREAK


def test_a_row_is_told_of_only_where_it_is_asked_whether_to() -> None:
    """Rows that nobody told of are no hits, and another token behind one is no miss."""
    client = Client(Ring())
    client.agrees(5 * MIN_STREAK)
    client.differs()
    assert client.agrees_until_told() == MIN_STREAK


def test_rows_elsewhere_say_nothing_about_guesses() -> None:
    """A window of rows in between, or a text cut back: neither is a token that was chosen."""
    ring = Ring()
    client = Client(ring)
    for step in (6, -2, 0):
        client.agrees_until_told()
        client.request, client.position = client.request + 1, client.position + step
        ring.asked(LANE, client.request, client.position)
        assert not ring.tells(LANE)
        assert client.agrees_until_told() == MIN_STREAK


def test_lanes_are_judged_each_by_itself_and_forgotten() -> None:
    ring = Ring()
    good, bad = Client(ring, 1), Client(ring, 2)
    for client in (good, bad):
        client.agrees_until_told()
    bad.differs()
    good.agrees()
    assert ring.tells(1) and not ring.tells(2)
    ring.forget(2)
    ring.forget(2)
    assert Client(ring, 2).agrees_until_told() == MIN_STREAK
    ring.forget(1)
    assert not ring.tells(1)


def test_whoever_hears_believes_at_once_and_stops_after_what_was_wrong() -> None:
    """No stage has to trust the one that tells it: it sees the client's numbers, too."""
    client = Client(Ring(least=0))
    assert client.agrees_until_told() == 0
    client.differs()
    assert client.agrees_until_told() == MIN_STREAK
    client.differs()
    assert client.agrees_until_told() == 2 * MIN_STREAK
    for _ in range(4 * MIN_STREAK):
        client.agrees()
        assert client.ring.tells(LANE)
    client.differs()
    assert client.agrees_until_told() < 2 * MIN_STREAK, "who is right for long is believed again"
