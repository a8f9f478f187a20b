"""Witnesses against the primary: attacks are found, proved to either side, and nothing of them is believed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from dllm_protocol.block import LightBlock, SignedHeader
from dllm_protocol.evidence import Evidence
from dllm_protocol.light_attack import AttackKind, LightClientAttackEvidence
from dllm_protocol.validator_set import ValidatorSet
from dllm_protocol.verification.evidence import verify_evidence
from light_node import examination
from light_node.client import LightClient, PeerRole, TrustOptions, TrustStatus
from light_node.errors import (
    ForkDetected,
    LightClientAttack,
    NoWitnessAgrees,
    NoWitnessLeft,
    PrioritiesDiverge,
    SourceRefusal,
    SourceTimedOut,
    SourceUnreachable,
)
from light_node.providers.events import EventKind
from light_node.trust_store import TrustStore
from tests.light_node.attacks import (
    AGE,
    HonestHistory,
    amnesia_fork,
    equivocation_fork,
    lunatic_fork,
)
from tests.light_node.conftest import MakeClient
from tests.light_node.signed_chain import ChainSource, ManualClock, SignedChain


async def attacked(client: LightClient, store: TrustStore) -> LightClientAttack:
    """Sync, expect an attack, and see that nothing of it was stored."""
    before = store.count()
    with pytest.raises(LightClientAttack) as caught:
        await client.sync()
    assert store.count() == max(before, 1)
    assert client.status().state is TrustStatus.TRUSTING
    assert client.status().last_refusal == caught.value.message
    return caught.value


def judged(evidence: Evidence, chain: SignedChain) -> None:
    """A full node of this chain takes the evidence."""
    evidence.validate_basic()
    verify_evidence(evidence, HonestHistory(chain), AGE)


FORKS = {
    AttackKind.LUNATIC: lambda chain: lunatic_fork(chain, 8, 3),
    AttackKind.EQUIVOCATION: lambda chain: equivocation_fork(chain, 10),
    AttackKind.AMNESIA: lambda chain: amnesia_fork(chain, 10),
}


@pytest.mark.parametrize("kind", FORKS)
async def test_each_kind_of_attack_is_proved_to_both_sides(
    kind: AttackKind, make_client: MakeClient, chain: SignedChain, store: TrustStore
) -> None:
    fork = FORKS[kind](chain)
    liar, honest = ChainSource(fork, "liar"), ChainSource(chain, "honest")
    client = make_client(liar, [honest])
    error = await attacked(client, store)
    assert (error.kind, error.height) == (kind, 10)
    assert fork.blocks[10].hash().hex() in error.message
    assert chain.blocks[10].hash().hex() in error.message
    assert honest.evidence == [error.against_primary]
    assert liar.evidence == [error.against_witness]
    judged(honest.evidence[0], chain)
    judged(liar.evidence[0], fork)
    named = error.against_primary.byzantine_validators
    assert len(named) == (0 if kind is AttackKind.AMNESIA else 4)
    assert [event.kind for event in client.events] == [
        EventKind.ATTACK,
        EventKind.EVIDENCE_SENT,
        EventKind.EVIDENCE_SENT,
    ]


async def test_a_lying_witness_is_proved_guilty_to_the_primary(
    make_client: MakeClient, chain: SignedChain, store: TrustStore
) -> None:
    honest, liar = ChainSource(chain, "honest"), ChainSource(lunatic_fork(chain, 8, 3), "liar")
    error = await attacked(make_client(honest, [liar]), store)
    assert honest.evidence == [error.against_witness]
    judged(honest.evidence[0], chain)


def _changing(heights: int) -> SignedChain:
    made = SignedChain(("v0", "v1", "v2", "v3"))
    for height in range(1, heights + 1):
        made.add(next_names=[f"v{height + offset}" for offset in range(4)])
    return made


async def test_the_chains_are_followed_to_where_they_part(store: TrustStore, clock: ManualClock) -> None:
    chain = _changing(40)
    fork = chain.forked(25)
    for height in range(25, 41):
        lie = {"app_hash": b"\x07" * 32}
        fork.add(next_names=[f"v{height + offset}" for offset in range(4)], lie=lie)
    clock.advance_s(60)
    liar, honest = ChainSource(fork, "liar"), ChainSource(chain, "honest")
    client = LightClient(
        chain.chain_id, TrustOptions(1, chain.blocks[1].hash()), store, liar, [honest], clock=clock
    )
    error = await attacked(client, store)
    evidence = error.against_primary
    # The trace is sparse: the common block lies below the first forged one, the conflict at or above it.
    assert evidence.common_height < 25 <= evidence.conflicting_block.height == error.height < 40
    judged(evidence, chain)
    assert error.against_witness is not None
    judged(error.against_witness, fork)


async def test_a_chain_made_quicker_than_time_is_an_attack(
    make_client: MakeClient, chain: SignedChain, store: TrustStore
) -> None:
    fork = lunatic_fork(chain, 8)
    for _ in range(5):
        fork.add(lie={"time": chain.blocks[10].header.time.add_ms(-1), "app_hash": b"\x07" * 32})
    liar, honest = ChainSource(fork, "liar"), ChainSource(chain, "honest")
    error = await attacked(make_client(liar, [honest]), store)
    assert (error.kind, error.height) == (AttackKind.LUNATIC, 13)
    judged(error.against_primary, chain)


async def test_a_witness_that_is_a_little_late_is_waited_for(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, clock: ManualClock
) -> None:
    class Late(ChainSource):
        async def signed_header(self, height: int | None) -> SignedHeader:
            self.serve_height = 9 if clock.monotonic_s() < 60 + 12 else None
            return await super().signed_header(height)

    assert (await make_client(source, [Late(chain, "late")]).sync()).height == 10
    assert 72 <= clock.monotonic_s() < 75


async def test_a_witness_that_stays_behind_is_waited_for_once_and_ignored(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, clock: ManualClock
) -> None:
    stuck, honest = ChainSource(chain, "stuck"), ChainSource(chain, "honest")
    stuck.serve_height = 9
    client = make_client(source, [stuck, honest])
    began = clock.monotonic_s()
    assert (await client.sync()).height == 10
    # 2 * drift + lag
    assert clock.monotonic_s() - began == 30
    assert client.witnesses == (stuck, honest)
    assert [(event.kind, event.name) for event in client.events] == [(EventKind.WITNESS_IGNORED, "stuck")]
    chain.grow(1)
    began = clock.monotonic_s()
    assert (await client.sync()).height == 11
    assert clock.monotonic_s() == began
    peers = {peer.name: peer for peer in client.status().peers}
    assert (peers["stuck"].height, peers["stuck"].problem) == (9, "stuck is at 9, asked was 11")
    assert (peers["honest"].height, peers["honest"].problem) == (11, "")
    assert (peers["node"].role, peers["stuck"].role) == (PeerRole.PRIMARY, PeerRole.WITNESS)


async def test_nothing_is_believed_that_no_witness_shows(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, store: TrustStore
) -> None:
    away, stuck = ChainSource(chain, "away"), ChainSource(chain, "stuck")
    away.offline = True
    stuck.serve_height = 9
    client = make_client(source, [away, stuck])
    with pytest.raises(NoWitnessAgrees) as caught:
        await client.sync()
    for words in (chain.blocks[10].hash().hex(), "cannot talk to away", "stuck is at 9, asked was 10"):
        assert words in caught.value.message
    latest = store.latest()
    assert latest is not None
    assert latest.height == 1
    assert client.witnesses == (away, stuck)
    away.offline = False
    assert (await client.sync()).height == 10


async def test_a_witness_that_hangs_is_left_alone_while_another_vouches(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, clock: ManualClock
) -> None:
    class Hung(ChainSource):
        asked = 0

        async def signed_header(self, height: int | None) -> SignedHeader:
            self.asked += 1
            raise SourceTimedOut(f"{self.name} did not answer commit within 10 s")

    hung, honest = Hung(chain, "hung"), ChainSource(chain, "honest")
    client = make_client(source, [hung, honest])
    await client.verified_header(5)
    asked = hung.asked
    for height in (6, 7, 8):
        await client.verified_header(height)
    assert hung.asked == asked
    clock.advance_s(60)
    await client.verified_header(9)
    assert hung.asked == asked + 1
    # Where nobody else vouches it is asked at once.
    honest.offline = True
    with pytest.raises(NoWitnessAgrees, match="hung did not answer commit within 10 s"):
        await client.verified_header(10)
    assert hung.asked == asked + 2
    assert client.witnesses == (hung, honest)


class WrongTurns(ChainSource):
    """Shows true headers with a rotation of its own."""

    async def validators(self, height: int) -> ValidatorSet:
        return ValidatorSet.genesis((await super().validators(height)).validators)


async def test_other_proposer_priorities_stop_everything(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, store: TrustStore
) -> None:
    honest, wrong = ChainSource(chain, "honest"), WrongTurns(chain, "wrong")
    client = make_client(source, [honest])
    chain.grow(1)
    await client.sync()
    chain.grow(1)
    client = make_client(source, [honest, wrong])
    with pytest.raises(PrioritiesDiverge) as caught:
        await client.sync()
    ours = chain.set_at(12).priority_hash().hex()
    theirs = (await wrong.validators(12)).priority_hash().hex()
    assert ours in caught.value.message
    assert theirs in caught.value.message
    assert ours != theirs
    latest = store.latest()
    assert latest is not None
    assert latest.height == 11


def _made_up(chain: SignedChain) -> SignedChain:
    fork = chain.forked(9)
    fork.validators[9] = fork.validators[10] = ("x", "y", "z", "w")
    fork.grow(2)
    return fork


async def test_the_last_witness_is_never_removed(
    make_client: MakeClient, chain: SignedChain, source: ChainSource
) -> None:
    liar = ChainSource(_made_up(chain), "liar")
    client = make_client(source, [liar])
    with pytest.raises(NoWitnessLeft) as caught:
        await client.sync()
    assert liar.chain.blocks[10].hash().hex() in caught.value.message
    assert chain.blocks[10].hash().hex() in caught.value.message
    assert client.witnesses == (liar,)
    honest = ChainSource(chain, "honest")
    client = make_client(source, [liar, honest])
    assert (await client.sync()).height == 10
    assert client.witnesses == (honest,)
    removed = [event for event in client.events if event.kind is EventKind.WITNESS_REMOVED]
    assert [event.name for event in removed] == ["liar"]
    assert client.status().last_refusal == removed[0].message
    assert client.status().peers[-1].role is PeerRole.REMOVED


async def test_a_witness_that_sends_rubbish_is_removed(
    make_client: MakeClient, chain: SignedChain, source: ChainSource
) -> None:
    class OtherChain(ChainSource):
        async def signed_header(self, height: int | None) -> SignedHeader:
            self.chain = SignedChain(("a", "b", "c", "d"), "another-chain")
            self.chain.grow(10)
            return await super().signed_header(height)

    other, honest = OtherChain(chain, "other"), ChainSource(chain, "honest")
    client = make_client(source, [other, honest])
    await client.sync()
    assert client.witnesses == (honest,)
    assert "claimed another-chain, found signed-chain" in client.status().last_refusal


async def test_a_root_that_a_witness_contradicts_is_not_taken(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, store: TrustStore
) -> None:
    other = SignedChain(("a", "b", "c", "d"))
    other.add(lie={"app_hash": b"\x07" * 32})
    other.grow(9)
    with pytest.raises(ForkDetected, match="height 1") as caught:
        await make_client(source, [ChainSource(other, "other")]).sync()
    assert other.blocks[1].hash().hex() in caught.value.message
    assert chain.blocks[1].hash().hex() in caught.value.message
    assert store.latest() is None


class Silenced(ChainSource):
    """A liar that says no more than it must, and takes no evidence."""

    def __init__(self, chain: SignedChain, heights: Sequence[int]) -> None:
        super().__init__(chain, "silenced")
        self._heights = heights

    async def signed_header(self, height: int | None) -> SignedHeader:
        if height is not None and height not in self._heights:
            raise SourceUnreachable("nobody is here")
        return await super().signed_header(height)

    async def broadcast_evidence(self, evidence: Evidence) -> bytes:
        raise SourceRefusal("no evidence is taken here")


async def test_a_liar_that_falls_silent_is_accused_all_the_same(
    make_client: MakeClient, chain: SignedChain, store: TrustStore
) -> None:
    honest = ChainSource(chain, "honest")
    await make_client(honest, [ChainSource(chain, "other")]).verified_header(4)
    liar = Silenced(lunatic_fork(chain, 8, 3), (10,))
    client = make_client(liar, [honest])
    error = await attacked(client, store)
    assert error.against_witness is None
    judged(error.against_primary, chain)
    assert [event.kind for event in client.events][-1] is EventKind.EVIDENCE_NOT_SENT
    assert isinstance(error.against_primary, LightClientAttackEvidence)


async def test_a_liar_does_not_hold_the_client_up(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(ChainSource):
        async def signed_header(self, height: int | None) -> SignedHeader:
            if height == 2 and self.lying:
                await asyncio.Event().wait()
            return await super().signed_header(height)

        lying = False

    monkeypatch.setattr(examination, "EXAMINATION_S", 0.2)
    endless, honest = Endless(lunatic_fork(chain, 8, 3), "endless"), ChainSource(chain, "honest")
    client = make_client(source, [endless, honest])
    await client.verified_header(2)
    endless.lying = True
    # The examination begins at the trusted header, which the witness never shows.
    other = make_client(source, [endless, honest])
    assert (await other.sync()).height == 10
    assert other.witnesses == (honest,)
    assert "could not be verified within 0.2 s" in other.status().last_refusal


async def test_evidence_that_nobody_takes_changes_nothing(
    make_client: MakeClient, chain: SignedChain, store: TrustStore
) -> None:
    liar = Silenced(equivocation_fork(chain, 10), range(1, 11))
    client = make_client(liar, [ChainSource(chain, "honest")])
    error = await attacked(client, store)
    assert error.against_witness is not None
    failures = [event for event in client.events if event.kind is EventKind.EVIDENCE_NOT_SENT]
    assert [(event.name, event.message) for event in failures] == [("silenced", "no evidence is taken here")]


async def test_evidence_that_comes_too_early_is_sent_again(
    make_client: MakeClient, chain: SignedChain, clock: ManualClock
) -> None:
    class NextBlockFirst(ChainSource):
        """As CometBFT, whose newest block's commit stands in no block yet."""

        refusals = 0

        async def broadcast_evidence(self, evidence: Evidence) -> bytes:
            if self.refusals < 2:
                self.refusals += 1
                raise SourceRefusal("Invalid evidence: don't have commit at height #10. Evidence: …")
            return await super().broadcast_evidence(evidence)

    honest = NextBlockFirst(chain, "honest")
    began = clock.monotonic_s()
    with pytest.raises(LightClientAttack) as caught:
        await make_client(ChainSource(equivocation_fork(chain, 10), "liar"), [honest]).sync()
    assert honest.evidence == [caught.value.against_primary]
    assert clock.monotonic_s() - began == 2


async def test_witnesses_keep_no_light_block_back(make_client: MakeClient, chain: SignedChain) -> None:
    client = make_client(ChainSource(chain), [ChainSource(chain, "honest")])
    for height in (10, 7, 1):
        found = await client.light_block(height)
        assert isinstance(found, LightBlock)
        assert found == chain.light_block(height)
