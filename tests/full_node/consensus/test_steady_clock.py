"""Time that goes on when the machine's clock is set back."""

from __future__ import annotations

from full_node.consensus.steady_clock import SteadyClock


class Machine:
    def __init__(self) -> None:
        self.wall_ns = 1_000
        self.monotonic_ns = 50

    def passes(self, ns: int) -> None:
        self.wall_ns += ns
        self.monotonic_ns += ns

    def clock(self) -> SteadyClock:
        return SteadyClock(lambda: self.wall_ns, lambda: self.monotonic_ns)


def test_it_is_the_machines_clock_while_that_behaves() -> None:
    machine = Machine()
    clock = machine.clock()
    for _ in range(3):
        assert clock() == machine.wall_ns
        machine.passes(7)


def test_set_back_it_goes_on_at_the_same_pace_and_set_forward_it_follows() -> None:
    machine = Machine()
    clock = machine.clock()
    assert clock() == 1_000
    machine.wall_ns -= 600
    machine.passes(10)
    assert clock() == 1_010
    machine.wall_ns += 5_000
    assert clock() == machine.wall_ns == 5_410


def test_what_its_own_blocks_say_is_the_least() -> None:
    machine = Machine()
    clock = machine.clock()
    clock.raise_to(9_000)
    machine.passes(5)
    assert clock() == 9_005
    clock.raise_to(3)
    assert clock() == 9_005
