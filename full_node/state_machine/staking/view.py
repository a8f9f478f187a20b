"""Reading validators, candidates and seats."""

from __future__ import annotations

from dllm_protocol import state_keys
from dllm_protocol.records import Candidate, CandidateList, SeatedValidator, SeatedValidators, ValidatorRecord
from dllm_protocol.refusals import UnknownValidator
from full_node.state_machine.state import StateReader, read


def find_validator(state: StateReader, address: bytes) -> ValidatorRecord | None:
    """What is staked on the consensus key with this address; None for a stranger."""
    return read(state, state_keys.validator(address), ValidatorRecord)


def validator(state: StateReader, address: bytes) -> ValidatorRecord:
    """What is staked on the consensus key with this address. Raises UnknownValidator."""
    found = find_validator(state, address)
    if found is None:
        raise UnknownValidator(f"nobody stakes on the consensus key with the address {address.hex()}")
    return found


def tokens_of(record: ValidatorRecord) -> int:
    """All udllm that a validator's record holds: stake, and what is on its way back."""
    return record.stake_udllm + sum(entry.amount_udllm for entry in record.unbonding)


def candidates(state: StateReader) -> tuple[Candidate, ...]:
    """Everyone who stands for a seat, by stake, highest first."""
    found = read(state, state_keys.CANDIDATES, CandidateList)
    return found.entries if found else ()


def seated(state: StateReader) -> tuple[SeatedValidator, ...]:
    """The validator set, by power, highest first."""
    found = read(state, state_keys.VALIDATORS, SeatedValidators)
    return found.entries if found else ()
