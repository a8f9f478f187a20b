"""A lane as the service sees it: a number, and whether it stands."""

from __future__ import annotations

from collections.abc import Callable


class Lane:
    """One lane of an engine; made by `local_worker.engine.client.Engine.take_lane`."""

    def __init__(self, number: int, give_up: Callable[[Lane], None]) -> None:
        self.number = number
        self.is_up = False
        """Whether rows can go over it."""
        self.reason = ""
        """Why it ended."""
        self.is_fault = False
        """Whether by what the other side sent."""
        self.on_rise: Callable[[], None] = _nothing
        """Called when rows can go over it from now on."""
        self.on_fall: Callable[[], None] = _nothing
        """Called when it ends by itself: what went over it last may not have arrived."""
        self._give_up = give_up

    def rise(self) -> None:
        """The other engine has answered."""
        self.is_up = True
        self.on_rise()

    def fall(self, reason: str, *, is_fault: bool = False) -> None:
        """It has ended by itself."""
        self._end(reason)
        self.is_fault = is_fault
        self.on_fall()

    def close(self) -> None:
        """Give it up."""
        self._end("it was given up")
        self._give_up(self)

    def _end(self, reason: str) -> None:
        self.is_up, self.reason = False, self.reason or reason


def _nothing() -> None:
    """What happens to a lane that nobody has use for yet."""
