"""Forks that a third of the old power signed: the witnesses reveal them, and evidence reaches both sides."""

from __future__ import annotations

from pathlib import Path

import pytest

from dllm_protocol.light_attack import AttackKind
from dllm_protocol.verification.evidence import verify_evidence
from light_node.client import TrustStatus
from light_node.errors import LightClientAttack, NoWitnessLeft
from light_node.providers.events import EventKind
from tests.light_node.attacks import AGE, HonestHistory, amnesia_fork, equivocation_fork
from tests.light_node.hostile.rig import client_of, node_of
from tests.light_node.signed_chain import SignedChain

VALIDATORS = ("a", "b", "c", "d")


@pytest.fixture
def chain() -> SignedChain:
    """Ten blocks by four validators."""
    made = SignedChain(VALIDATORS)
    made.grow(10)
    return made


def third_s_fork(chain: SignedChain) -> SignedChain:
    """Half of the validators bring in strangers, without whom they could not sign a block."""
    fork = chain.forked(8)
    fork.validators[8] = fork.validators[9] = ("a", "b", "x:1", "y:1")
    for _ in range(3):
        fork.add(lie={"app_hash": b"\x07" * 32})
    return fork


FORKS = {
    AttackKind.LUNATIC: third_s_fork,
    AttackKind.EQUIVOCATION: lambda chain: equivocation_fork(chain, 10),
    AttackKind.AMNESIA: lambda chain: amnesia_fork(chain, 10),
}


@pytest.mark.parametrize("kind", FORKS)
async def test_a_fork_is_revealed_and_its_signers_are_named(
    kind: AttackKind, tmp_path: Path, chain: SignedChain
) -> None:
    fork = FORKS[kind](chain)
    hostile, honest, other = node_of(fork), node_of(chain), node_of(chain)
    async with client_of(tmp_path, chain, hostile, [honest, other]) as client:
        with pytest.raises(LightClientAttack) as caught:
            await client.sync()
        error = caught.value
        assert client.status().height == 1
        assert client.status().state is TrustStatus.TRUSTING
        sent = [event.name for event in client.events if event.kind is EventKind.EVIDENCE_SENT]
        assert sent[-1] == client.primary.name
    assert error.kind is kind
    assert chain.blocks[10].hash().hex() in error.message
    assert fork.blocks[10].hash().hex() in error.message

    (against_primary,) = honest.source.evidence + other.source.evidence
    assert against_primary == error.against_primary
    against_primary.validate_basic()
    verify_evidence(against_primary, HonestHistory(chain), AGE)
    guilty = {one.public_key for one in error.against_primary.byzantine_validators}
    signers = {one.public_key for one in fork.set_at(10).validators}
    members = {one.public_key for one in chain.set_at(1).validators}
    assert guilty == (set() if kind is AttackKind.AMNESIA else signers & members)

    (against_witness,) = hostile.source.evidence
    verify_evidence(against_witness, HonestHistory(fork), AGE)


async def test_a_fork_by_less_than_a_third_is_only_a_lie(tmp_path: Path, chain: SignedChain) -> None:
    fork = chain.forked(8)
    fork.validators[8] = fork.validators[9] = ("a", "x", "y", "z")
    for _ in range(3):
        fork.add(lie={"app_hash": b"\x07" * 32})
    liar, honest = node_of(fork), node_of(chain)
    async with client_of(tmp_path / "1", chain, honest, [liar, node_of(chain)]) as client:
        assert (await client.sync()).hash() == chain.blocks[10].hash()
        assert len(client.witnesses) == 1
    async with client_of(tmp_path / "2", chain, honest, [liar]) as client:
        with pytest.raises(NoWitnessLeft) as caught:
            await client.sync()
    assert chain.blocks[10].hash().hex() in caught.value.message
    assert fork.blocks[10].hash().hex() in caught.value.message
    assert honest.source.evidence == liar.source.evidence == []
