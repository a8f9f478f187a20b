"""Any history of stakes and misbehaviour, beside a model of it that is as plain as can be.

`World` itself checks after every block that no token appeared or vanished, that an engine's set takes the updates
(no stranger removed, no key twice, somebody left), and that this set is the one that the state proves.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dllm_protocol.encoding import Record
from dllm_protocol.validator_set import TOTAL_POWER_MAX
from full_node.state_machine.application import Application
from full_node.state_machine.context import BlockContext, Misbehaviour, MisbehaviourKind
from tests.full_node.state_machine.validators import (
    LEAST,
    SEATS,
    STAKING_PARAMS,
    burned,
    seats,
    staking,
    unstaking,
    validator_of,
)
from tests.full_node.state_machine.world import FEE_UDLLM, World, address, signer

PARAMS = replace(
    STAKING_PARAMS, unbonding_ms=5_000, evidence_age_ms=3_000, trusting_period_ms=2_000, heartbeat_ms=500
)
OWNERS = ("alice", "bob", "carol", "dave")
KEYS = ("a", "b", "c", "d", "e")
AMOUNTS = st.one_of(
    st.sampled_from((0, 1, LEAST - 1, LEAST, LEAST, LEAST, 2 * LEAST)), st.integers(0, 4 * LEAST)
)
WAITS_MS = st.sampled_from((200, 200, 1_000, 3_000, 5_000))


@dataclass
class Held:
    """One validator, as the model has it."""

    owner: str
    stake: int = 0
    leaving: list[list[int]] = field(default_factory=list)
    """Amount, release time, height."""
    jailed: bool = False


@dataclass
class Model:
    """What should be so, without records, lists kept in order, or updates."""

    validators: dict[str, Held]
    money: dict[str, int]
    set: dict[str, int]
    burned: int = 0

    def collect(self, held: Held, now_ms: int) -> None:
        self.money[held.owner] += sum(amount for amount, release, _ in held.leaving if release <= now_ms)
        held.leaving = [entry for entry in held.leaving if entry[1] > now_ms]

    def stake(self, owner: str, name: str, amount: int, now_ms: int) -> bool:
        held = self.validators.get(name) or Held(owner)
        if amount == 0 or held.owner != owner or held.jailed or held.stake + amount < LEAST:
            return False
        due = sum(gone for gone, release, _ in held.leaving if release <= now_ms)
        if self.money[owner] + due < amount:
            return False
        self.validators[name] = held
        self.collect(held, now_ms)
        self.money[owner] -= amount
        held.stake += amount
        return True

    def unstake(self, owner: str, name: str, amount: int, now_ms: int, height: int) -> bool:
        held = self.validators.get(name)
        if held is None or held.owner != owner or amount > held.stake:
            return False
        left = held.stake - amount
        if amount and not held.jailed:
            others = [one for key, one in self.validators.items() if key != name and stands(one)]
            if (left == 0 and not others) or 0 < left < LEAST:
                return False
        waiting = [entry for entry in held.leaving if entry[1] > now_ms]
        if amount and len(waiting) == 16:
            return False
        self.collect(held, now_ms)
        if amount:
            held.stake = left
            held.leaving.append([amount, now_ms + PARAMS.unbonding_ms, height])
        if not held.stake and not held.leaving and not held.jailed:
            del self.validators[name]
        return True

    def punish(self, name: str, at_height: int, at_ms: int, now_ms: int) -> None:
        held = self.validators.get(name)
        if held is None or held.jailed or now_ms - at_ms > PARAMS.evidence_age_ms:
            return
        held.jailed = True
        lost = held.stake // 20
        held.stake -= lost
        self.burned += lost
        for entry in held.leaving:
            if at_height <= entry[2] + 1:
                lost = entry[0] // 20
                entry[0] -= lost
                self.burned += lost
        held.leaving = [entry for entry in held.leaving if entry[0]]

    def end_block(self) -> None:
        standing = sorted(
            (name for name, held in self.validators.items() if stands(held)),
            key=lambda name: (-self.validators[name].stake, address(name)),
        )
        if standing:
            self.set = {name: self.validators[name].stake // 1_000_000 for name in standing[:SEATS]}


def stands(held: Held) -> bool:
    """Whether it may have a seat."""
    return held.stake > 0 and not held.jailed


class Walk(RuleBasedStateMachine):
    """Blocks of some actions and some evidence."""

    @initialize()
    def start(self) -> None:
        self.world = World(PARAMS)
        self.times_ms = {0: self.world.time_ms}
        first = {"validator": Held("staker", LEAST)}
        self.model = Model(first, {name: self.world.balance(name) for name in (*OWNERS, "staker")}, {})
        self.model.end_block()

    def block(
        self,
        wanted: list[tuple[str, Record]],
        expected: list[bool],
        proofs: tuple[Misbehaviour, ...],
        wait_ms: int,
    ) -> None:
        """One block on the world, and on a second replica that is made anew; the model has gone ahead."""
        world = self.world
        raws, used = [], dict.fromkeys(OWNERS, 0)
        for owner, action in wanted:
            sequence = world.account(owner).sequence + used[owner]
            used[owner] += 1
            raws.append(world.sign(owner, action, sequence=sequence).encode())
        context = BlockContext(
            world.chain_id, world.height + 1, (world.time_ms + wait_ms) * 1_000_000, proofs
        )
        elsewhere = Application(world.reader).finalize_block(context, raws)
        here = world.block(*raws, after_ms=wait_ms, misbehaviour=proofs)
        assert here == elsewhere
        assert [one.code == 0 for one in here.results] == expected, [one.log for one in here.results]
        self.times_ms[world.height] = world.time_ms
        self.model.end_block()

    @rule(
        deeds=st.lists(
            st.tuples(st.booleans(), st.sampled_from(OWNERS), st.sampled_from(KEYS), AMOUNTS), max_size=4
        ),
        wait_ms=WAITS_MS,
    )
    def some_actions(self, deeds: list[tuple[bool, str, str, int]], wait_ms: int) -> None:
        now_ms, height = self.world.time_ms + wait_ms, self.world.height + 1
        wanted: list[tuple[str, Record]] = []
        expected = []
        for is_stake, owner, name, amount in deeds:
            self.model.money[owner] -= FEE_UDLLM
            if is_stake:
                wanted.append((owner, staking(self.world, owner, name, amount)))
                expected.append(self.model.stake(owner, name, amount, now_ms))
            else:
                wanted.append((owner, unstaking(name, amount)))
                expected.append(self.model.unstake(owner, name, amount, now_ms, height))
        self.block(wanted, expected, (), wait_ms)

    @rule(name=st.sampled_from(KEYS), wait_ms=WAITS_MS)
    def leave(self, name: str, wait_ms: int) -> None:
        held = self.model.validators.get(name)
        if held is None:
            return
        now_ms, height = self.world.time_ms + wait_ms, self.world.height + 1
        self.model.money[held.owner] -= FEE_UDLLM
        amount = held.stake
        expected = self.model.unstake(held.owner, name, amount, now_ms, height)
        self.block([(held.owner, unstaking(name, amount))], [expected], (), wait_ms)

    @rule(
        names=st.lists(st.sampled_from((*KEYS, "validator", "nobody")), min_size=1, max_size=3),
        back=st.integers(0, 6),
        kind=st.sampled_from(list(MisbehaviourKind)),
        wait_ms=WAITS_MS,
    )
    def evidence(self, names: list[str], back: int, kind: MisbehaviourKind, wait_ms: int) -> None:
        now_ms = self.world.time_ms + wait_ms
        height = max(0, self.world.height - back)
        at_ms = self.times_ms[height]
        proofs = tuple(Misbehaviour(kind, address(name), 1, height, at_ms, 10) for name in names)
        for name in names:
            self.model.punish(name, height, at_ms, now_ms)
        self.block([], [], proofs, wait_ms)

    @invariant()
    def the_chain_and_the_model_agree(self) -> None:
        if not hasattr(self, "world"):
            return
        assert seats(self.world) == {signer(name).public_key: power for name, power in self.model.set.items()}
        assert 0 < sum(seats(self.world).values()) <= TOTAL_POWER_MAX
        assert burned(self.world) == self.model.burned
        for name, money in self.model.money.items():
            assert self.world.balance(name) == money, name
        for name in (*KEYS, "validator"):
            held, record = self.model.validators.get(name), validator_of(self.world, name)
            assert (held is None) == (record is None), name
            if held is not None and record is not None:
                leaving = [
                    [one.amount_udllm, one.release_time_ms, one.left_height] for one in record.unbonding
                ]
                assert (record.owner, record.stake_udllm, bool(record.jailed), leaving) == (
                    address(held.owner),
                    held.stake,
                    held.jailed,
                    held.leaving,
                )


TestStakingWalk = Walk.TestCase
