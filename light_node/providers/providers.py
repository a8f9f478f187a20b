"""One primary and its witnesses: who is asked, who takes over, who is asked no more (CometBFT light/client.go)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TypeVar

from dllm_protocol.errors import DllmError
from light_node.errors import NoWitnessLeft
from light_node.freshness import PeerRole, PeerStatus
from light_node.providers.asking import as_answered
from light_node.providers.events import EventKind, Journal
from light_node.providers.faults import Fault, fault_of
from light_node.source import Source

T = TypeVar("T")


class Providers:
    """The nodes of one client.

    A primary that only fails goes to the end of the witnesses; one that lies is dropped, as long as a witness remains
    besides the one that takes over. The last witness is never removed: without one nobody would notice a lie.
    """

    def __init__(self, primary: Source, witnesses: Sequence[Source], journal: Journal) -> None:
        """Prepare; nothing is asked."""
        self.primary = primary
        self.witnesses = tuple(witnesses)
        self.last_refusal = ""
        """The last thing that was not believed."""
        self._journal = journal
        self._removed: dict[Source, str] = {}
        self._heights: dict[Source, int] = {}
        self._problems: dict[Source, str] = {}

    def saw(self, source: Source, height: int) -> None:
        """A node showed a header at this height, so it is well."""
        self._heights[source] = max(height, self._heights.get(source, 0))
        self._problems.pop(source, None)

    def has_problem(self, source: Source, problem: str) -> None:
        """Remember what is wrong with a node."""
        self._problems[source] = problem

    def refused(self, message: str) -> None:
        """Remember what was not believed."""
        self.last_refusal = message

    def peers(self) -> tuple[PeerStatus, ...]:
        """Every node and how it does."""
        roles = {self.primary: PeerRole.PRIMARY} | dict.fromkeys(self.witnesses, PeerRole.WITNESS)
        active = tuple(
            PeerStatus(one.name, role, self._heights.get(one, 0), self._problems.get(one, ""))
            for one, role in roles.items()
        )
        return active + tuple(
            PeerStatus(one.name, PeerRole.REMOVED, self._heights.get(one, 0), reason)
            for one, reason in self._removed.items()
        )

    async def ask(self, question: Callable[[Source], Awaitable[T]]) -> T:
        """Ask the primary; where it fails, whichever witness answers first becomes the primary.

        Raises:
            The primary's error, where no witness does better.
        """
        asked = self.primary
        try:
            return await question(asked)
        except DllmError as error:
            if self.primary is not asked:
                # Somebody else has found out meanwhile; the new one is not to blame.
                return await question(self.primary)
            return await self.replace_primary(error, question)

    async def replace_primary(
        self,
        error: DllmError,
        question: Callable[[Source], Awaitable[T]],
        accept: Callable[[T], bool] = lambda _: True,
    ) -> T:
        """Let a witness that answers take the primary's place.

        Args:
            error: what the primary came to; it decides whether it is kept as a witness.
            question: what the new primary must answer.
            accept: whether an answer counts; whoever gives another stays a witness.

        Raises:
            `error`: another node would not help, there is none, or none answers (so).
        """
        fault, blamed = fault_of(error), self.primary
        self.has_problem(blamed, error.message)
        if fault is Fault.LIE:
            self.refused(error.message)
        spare = len(self.witnesses) - (fault is Fault.LIE)
        if fault is Fault.NOT_THEIRS or spare < 1:
            raise error
        liars: dict[Source, str] = {}
        async with aclosing(as_answered(self.witnesses, question)) as answers:
            async for witness, answer in answers:
                if isinstance(answer, DllmError):
                    self.has_problem(witness, answer.message)
                    if fault_of(answer) is Fault.LIE:
                        liars[witness] = answer.message
                elif accept(answer):
                    if self.primary is blamed:  # else another question has replaced it meanwhile
                        self.promote(witness, error.message, keep=fault is Fault.SILENT)
                    self.remove_if_spared(liars)
                    return answer
        self.remove_if_spared(liars)
        raise error

    def promote(self, witness: Source, reason: str, *, keep: bool) -> None:
        """Make a witness the primary.

        Args:
            reason: what was wrong with the old one.
            keep: whether the old one goes on as the last witness.
        """
        old, self.primary = self.primary, witness
        others = tuple(one for one in self.witnesses if one is not witness)
        self.witnesses = (*others, old) if keep else others
        self.has_problem(old, reason)
        if not keep:
            self._removed[old] = reason
        self._journal.note(EventKind.PRIMARY_REPLACED, old.name, f"{reason}; now asking {witness.name}")

    def remove(self, unsound: Mapping[Source, str]) -> None:
        """Ask these witnesses no more; the values say why.

        Raises:
            NoWitnessLeft: there would be none left; then all are kept.
        """
        for witness, reason in unsound.items():
            self.has_problem(witness, reason)
            self.refused(reason)
        if not unsound:
            return
        if len(unsound) >= len(self.witnesses):
            raise NoWitnessLeft(
                "no witness is left: " + "; ".join(unsound.values()),
                hint="one of these nodes lies: add another witness to find out which",
            )
        self.witnesses = tuple(one for one in self.witnesses if one not in unsound)
        for witness, reason in unsound.items():
            self._removed[witness] = reason
            self._journal.note(EventKind.WITNESS_REMOVED, witness.name, reason)

    def remove_if_spared(self, unsound: Mapping[Source, str]) -> None:
        """Ask these witnesses no more, unless there would be none left."""
        present = {one: reason for one, reason in unsound.items() if one in self.witnesses}
        if len(present) < len(self.witnesses):
            self.remove(present)

    def ignored(self, witness: Source, reason: str) -> None:
        """A witness said nothing that helps this time."""
        self.has_problem(witness, reason)
        self._journal.note(EventKind.WITNESS_IGNORED, witness.name, reason)

    async def close(self) -> None:
        """Let go of every connection."""
        for source in (self.primary, *self.witnesses, *self._removed):
            await source.close()
