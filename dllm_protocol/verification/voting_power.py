"""How much of a validator set's power signed a commit (CometBFT v0.38, types/validation.go).

Signatures that libsodium refuses are counted as absent. CometBFT accepts a wider set (ZIP-215), so a validator
with a crafted key must not be able to make an otherwise sufficient commit unreadable; and what does not count
can never add trust. A lone signature that is merely wrong therefore lowers the tally and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from dllm_protocol.block_errors import InvalidBlock
from dllm_protocol.commit import BlockIDFlag, Commit
from dllm_protocol.signing import verify
from dllm_protocol.validator_set import Validator, ValidatorSet
from dllm_protocol.verification.trust_level import TWO_THIRDS, TrustLevel


@dataclass(frozen=True, slots=True)
class Tally:
    """Outcome of counting signatures."""

    signed_power: int
    """Power of the validators whose signature over this block holds (counting may stop once it is enough)."""
    needed_power: int
    """Power that must be exceeded."""
    total_power: int
    """Power of the whole set."""
    refused: int = 0
    """Signatures that claim this block and do not verify."""

    @property
    def is_enough(self) -> bool:
        """Whether more than the needed power signed."""
        return self.signed_power > self.needed_power

    def __str__(self) -> str:
        refused = f", {self.refused} signatures refused" if self.refused else ""
        return (
            f"{self.signed_power} of {self.total_power} signed, more than {self.needed_power} needed{refused}"
        )


def tally_by_index(
    chain_id: str, validators: ValidatorSet, commit: Commit, *, stop_early: bool = True
) -> Tally:
    """Count the set that should have signed, position by position (VerifyCommitLight).

    Args:
        chain_id: the chain whose votes these are.
        validators: the set of the commit's height.
        commit: the commit.
        stop_early: stop as soon as two thirds are exceeded; judging evidence counts all.

    Raises:
        InvalidBlock: the sizes differ, or an entry names another validator than stands at its position.
    """
    if len(commit.signatures) != len(validators):
        raise InvalidBlock(
            f"commit has {len(commit.signatures)} signatures, the validator set has {len(validators)} members"
        )
    pairs: list[tuple[int, Validator]] = []
    for index, (entry, validator) in enumerate(zip(commit.signatures, validators.validators, strict=True)):
        if entry.flag is not BlockIDFlag.COMMIT:
            continue
        if entry.validator_address != validator.address:
            raise InvalidBlock(
                f"signature {index} is by {entry.validator_address.hex().upper()}, "
                f"the validator there is {validator.address.hex().upper()}"
            )
        pairs.append((index, validator))
    return _counted(chain_id, commit, pairs, validators.total_power, TWO_THIRDS, stop_early=stop_early)


def tally_by_address(
    chain_id: str, trusted: ValidatorSet, commit: Commit, level: TrustLevel, *, stop_early: bool = True
) -> Tally:
    """Count what a trusted set contributes to a later commit (VerifyCommitLightTrusting); strangers are skipped.

    Raises:
        InvalidBlock: one validator signs twice.
    """
    pairs: list[tuple[int, Validator]] = []
    first_seen: dict[bytes, int] = {}
    for index, entry in enumerate(commit.signatures):
        if entry.flag is not BlockIDFlag.COMMIT:
            continue
        validator = trusted.by_address(entry.validator_address)
        if validator is None:
            continue
        earlier = first_seen.setdefault(validator.address, index)
        if earlier != index:
            raise InvalidBlock(
                f"validator {validator.address.hex().upper()} signs twice, at {earlier} and at {index}"
            )
        pairs.append((index, validator))
    return _counted(chain_id, commit, pairs, trusted.total_power, level, stop_early=stop_early)


def _counted(
    chain_id: str,
    commit: Commit,
    pairs: list[tuple[int, Validator]],
    total_power: int,
    level: TrustLevel,
    *,
    stop_early: bool,
) -> Tally:
    needed = level.power_needed(total_power)
    claimed = sum(validator.voting_power for _, validator in pairs)
    if claimed <= needed and stop_early:
        # Not even with every signature good: say so without verifying any, as CometBFT's batch path does.
        return Tally(claimed, needed, total_power)
    signed = refused = 0
    sign_bytes = commit.block_votes(chain_id)
    for index, validator in pairs:
        entry = commit.signatures[index]
        if verify(validator.public_key, sign_bytes(entry.timestamp), entry.signature):
            signed += validator.voting_power
        else:
            refused += 1
        if stop_early and signed > needed:
            break
    return Tally(signed, needed, total_power, refused)
