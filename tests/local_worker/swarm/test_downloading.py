"""Who is asked with whom, and who is called a liar: decisions over a session in which a script says what happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from dllm_protocol.model_manifest import PIECE_BLOCK, Piece
from local_worker.packages.package import piece_path, verify_piece
from local_worker.swarm.downloading import LIED, QUIET, Downloading
from local_worker.swarm.errors import FetchStalled, NoSourceLeft, SourcesLied
from local_worker.swarm.sources import Limits, Place, Sources, numeric_place
from local_worker.swarm.swarm import Event, Happened, Swarm, Transfer
from tests.local_worker.swarm.rig import IDLE_S, Made, WebServer, serving

LIAR, HONEST, THIRD = ("192.0.2.1", 1), ("192.0.2.1", 2), ("192.0.2.3", 1)
"""The first two behind one address."""
NAMES = {numeric_place(*LIAR): "liar", numeric_place(*HONEST): "honest", numeric_place(*THIRD): "third"}


@dataclass(frozen=True)
class Answer:
    """What comes of asking some peers for a piece."""

    banned: tuple[Place, ...] = ()
    is_whole: bool = False


Script = Callable[[frozenset[str]], Answer]


@dataclass
class ScriptedSwarm:
    """A session in which a script says what comes of a question; `asked` has all of them, ``!`` before those apart."""

    made: Made
    script: Script
    may_meet_others: bool = False
    is_apart: bool = False
    asked: list[str] = field(default_factory=list)
    open: list[ScriptedSwarm] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    listens_at: Place | None = None
    _answers: dict[bytes, Answer] = field(default_factory=dict)
    _events: list[Event] = field(default_factory=list)

    def apart(self, share: int) -> ScriptedSwarm:
        assert share >= 1
        one = ScriptedSwarm(self.made, self.script, is_apart=True, asked=self.asked, open=self.open)
        self.open.append(one)
        return one

    def close(self) -> None:
        self.open.remove(self)

    def fetch(self, piece: Piece, folder: Path, spans: bytes | None, peers: Iterable[Place]) -> None:
        assert piece.root not in self._answers, "asked twice at a time"
        names = frozenset(NAMES[numeric_place(*one)] for one in peers)
        self.asked.append("!" * self.is_apart + "+".join(sorted(names)))
        answer = self._answers[piece.root] = self.script(names)
        if answer.is_whole:
            (folder / piece.root.hex()).write_bytes(piece_path(self.made.folder, piece).read_bytes())
        self._events += [
            Event(Happened.PEER_BANNED, piece.root, source=numeric_place(*one)) for one in answer.banned
        ]

    def connect(self, piece: Piece, peers: Iterable[Place]) -> None:
        assert piece.root in self._answers

    def ask_for_spans(self, piece: Piece) -> None:
        assert piece.root in self._answers

    def holds(self, piece: Piece) -> bool:
        return piece.root in self._answers

    def transfer(self, piece: Piece) -> Transfer:
        is_whole = self._answers[piece.root].is_whole
        return Transfer(piece.size_bytes if is_whole else 0, 0, 0, 1, False, is_whole)

    def let_go(self, piece: Piece) -> None:
        del self._answers[piece.root]

    def poll(self, _timeout_ms: int) -> list[Event]:
        events, self._events = self._events, []
        return events


@dataclass
class Run:
    """A download under a script, and what came of it."""

    made: Made
    package: Path
    swarm: ScriptedSwarm
    downloading: Downloading
    said: list[str]

    def fetch(self, *blocks: int) -> None:
        pieces = [self.made.piece(PIECE_BLOCK, index) for index in blocks]
        try:
            self.downloading.run(pieces)
        finally:
            assert not self.swarm.open, "a session apart was left open"
        for piece in pieces:
            verify_piece(self.package, piece)

    @property
    def asked(self) -> list[str]:
        return self.swarm.asked

    @property
    def refused(self) -> dict[str, str]:
        return {NAMES.get(one, one): reason for one, reason in self.downloading.refused.items()}


def a_run(
    made: Made,
    package: Path,
    script: Script,
    *peers: Place,
    web_seeds: tuple[str, ...] = (),
    may_meet_others: bool = False,
    idle_s: float = IDLE_S,
) -> Run:
    for folder in ("pieces", "fetching"):
        (package / folder).mkdir(parents=True)
    swarm, said = ScriptedSwarm(made, script, may_meet_others), list[str]()
    downloading = Downloading(cast(Swarm, swarm), package, Sources(peers, web_seeds), idle_s, said.append)
    return Run(made, package, swarm, downloading, said)


def lies_and_taints(names: frozenset[str]) -> Answer:
    """The liar's bytes have everybody banned who is asked beside it."""
    if "liar" in names:
        return Answer(tuple(one for one in (HONEST, LIAR, THIRD) if NAMES[numeric_place(*one)] in names))
    return Answer(is_whole=True)


def test_who_was_banned_beside_a_liar_is_asked_alone_and_not_called_one(made: Made, tmp_path: Path) -> None:
    run = a_run(made, tmp_path / "out", lies_and_taints, LIAR, HONEST)
    run.fetch(1)
    assert run.asked == ["honest+liar", "!honest"], "nobody needed to ask the liar"
    assert run.refused == {}


def test_a_liar_is_named_once_it_has_lied_alone(made: Made, tmp_path: Path) -> None:
    def script(names: frozenset[str]) -> Answer:
        if len(names) > 1:
            return Answer((LIAR, HONEST))
        return lies_and_taints(names)

    run = a_run(made, tmp_path / "out", script, LIAR, HONEST)
    run.fetch(1)
    assert run.asked == ["honest+liar", "!liar", "!honest"]
    assert run.refused == {"liar": LIED}
    assert any(line.startswith(f"no longer asked: {numeric_place(*LIAR)}") for line in run.said)


def test_a_suspect_is_not_asked_while_another_is_left(made: Made, tmp_path: Path) -> None:
    """Banned in one of the first four pieces: the fifth is asked of the other one alone, together with nobody."""

    def script(names: frozenset[str]) -> Answer:
        return Answer((LIAR,) if "liar" in names else (), is_whole=True)

    run = a_run(made, tmp_path / "out", script, LIAR, HONEST)
    run.fetch(0)
    run.fetch(1, 2)
    assert run.asked == ["honest+liar", "honest", "honest"]
    assert run.refused == {}, "nobody but a suspect"


def test_suspects_are_asked_for_further_pieces_alone_and_liars_are_not(made: Made, tmp_path: Path) -> None:
    run = a_run(made, tmp_path / "out", lies_and_taints, LIAR, HONEST)
    run.swarm.script = lambda names: Answer((LIAR, HONEST)) if len(names) > 1 else lies_and_taints(names)
    run.fetch(0)
    run.swarm.asked.clear()
    run.fetch(1, 2)
    assert run.asked == ["!honest", "!honest"]


def test_each_suspect_is_asked_once_a_piece(made: Made, tmp_path: Path) -> None:
    def script(names: frozenset[str]) -> Answer:
        return Answer(tuple(one for one in (LIAR, HONEST, THIRD) if NAMES[numeric_place(*one)] in names))

    run = a_run(made, tmp_path / "out", script, LIAR, HONEST, THIRD)
    with pytest.raises(SourcesLied, match=r"block 1.*192\.0\.2\.1:1.*192\.0\.2\.1:2.*192\.0\.2\.3:1"):
        run.fetch(1)
    assert run.asked == ["honest+liar+third", "!liar", "!honest", "!third"]


def test_an_only_source_needs_no_second_question(made: Made, tmp_path: Path) -> None:
    run = a_run(made, tmp_path / "out", lies_and_taints, LIAR)
    with pytest.raises(SourcesLied, match=LIED):
        run.fetch(1)
    assert run.asked == ["liar"]


def test_an_only_source_is_asked_apart_where_others_may_come_by_themselves(
    made: Made, tmp_path: Path
) -> None:
    """A stranger could come to where we listen, and send what somebody else is banned for."""

    def framed(names: frozenset[str]) -> Answer:
        return (
            Answer((HONEST,)) if not framed_once and not framed_once.append(True) else Answer(is_whole=True)
        )

    framed_once: list[bool] = []
    run = a_run(made, tmp_path / "out", framed, HONEST, may_meet_others=True)
    run.fetch(1)
    assert (run.asked, run.refused) == (["honest", "!honest"], {})
    liar = a_run(made, tmp_path / "other", lies_and_taints, LIAR, may_meet_others=True)
    with pytest.raises(SourcesLied, match=LIED):
        liar.fetch(1)
    assert liar.asked == ["liar", "!liar"]


def test_strangers_that_are_banned_are_nobodys_fault(made: Made, tmp_path: Path) -> None:
    run = a_run(
        made, tmp_path / "out", lambda _: Answer((THIRD,), is_whole=True), HONEST, may_meet_others=True
    )
    run.fetch(1)
    assert (run.asked, run.refused) == (["honest"], {})


def test_web_seeds_are_asked_before_suspects(made: Made, tmp_path: Path) -> None:
    with serving(WebServer(made.folder)) as server:
        run = a_run(made, tmp_path / "out", lies_and_taints, LIAR, HONEST, web_seeds=(server.url,))
        run.fetch(1)
    assert (run.asked, run.refused) == (["honest+liar"], {})


def test_suspects_are_asked_where_web_seeds_have_nothing(made: Made, tmp_path: Path) -> None:
    with serving(WebServer(made.folder / "nothing")) as server:
        run = a_run(made, tmp_path / "out", lies_and_taints, LIAR, HONEST, web_seeds=(server.url,))
        run.fetch(1)
    assert run.asked == ["honest+liar", "!honest"]
    assert list(run.refused) == [server.url]


def test_a_suspect_does_not_wait_for_peers_that_say_nothing(made: Made, tmp_path: Path) -> None:
    """The third one never answers; it is asked after those who may have been wronged, and delays no piece for good."""

    def script(names: frozenset[str]) -> Answer:
        if names == {"honest"}:
            return Answer(is_whole=True)
        return Answer((LIAR, HONEST)) if len(names) > 1 else Answer()

    run = a_run(made, tmp_path / "out", script, LIAR, HONEST, THIRD, idle_s=1.0)
    run.fetch(1)
    assert run.asked == ["honest+liar+third", "!liar", "!honest"]
    assert run.refused == {"liar": QUIET}
    run.swarm.asked.clear()
    run.fetch(2)
    assert run.asked == ["!honest"], "who said nothing comes last"


def test_suspects_that_say_nothing_end_it(made: Made, tmp_path: Path) -> None:
    def script(names: frozenset[str]) -> Answer:
        return Answer((LIAR, HONEST)) if len(names) > 1 else Answer()

    run = a_run(made, tmp_path / "out", script, LIAR, HONEST, idle_s=0.8)
    with pytest.raises(FetchStalled, match=r"\.1:1: it was asked alone.*\.1:2: nothing came"):
        run.fetch(1)
    assert run.asked == ["honest+liar", "!liar", "!honest"]


def test_nobody_at_all(made: Made, tmp_path: Path) -> None:
    run = a_run(made, tmp_path / "out", lies_and_taints)
    with pytest.raises(NoSourceLeft, match="none was given"):
        run.fetch(1)
    assert run.asked == []
