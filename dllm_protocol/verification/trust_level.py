"""Which fraction of the trusted power must have signed a header that lies further ahead."""

from __future__ import annotations

from dataclasses import dataclass

from dllm_protocol.errors import UsageRefused


@dataclass(frozen=True, slots=True)
class TrustLevel:
    """A fraction between one third and one; "more than" is meant when it is compared."""

    numerator: int
    denominator: int

    def __post_init__(self) -> None:
        if self.denominator < 1 or not self.denominator <= 3 * self.numerator <= 3 * self.denominator:
            raise UsageRefused(
                f"trust level {self.numerator}/{self.denominator} is not between 1/3 and 1",
                hint="use 1/3 unless you know why not",
            )

    def power_needed(self, total_power: int) -> int:
        """Return the power that must be exceeded: floor(total · numerator / denominator)."""
        return total_power * self.numerator // self.denominator

    def __str__(self) -> str:
        return f"{self.numerator}/{self.denominator}"


ONE_THIRD = TrustLevel(1, 3)
TWO_THIRDS = TrustLevel(2, 3)
