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
        self._give_up = give_up

    def rise(self) -> None:
        """The other engine has answered."""
        self.is_up = True

    def fall(self, reason: str) -> None:
        """It has ended."""
        self.is_up, self.reason = False, self.reason or reason

    def close(self) -> None:
        """Give it up."""
        self.fall("it was given up")
        self._give_up(self)
