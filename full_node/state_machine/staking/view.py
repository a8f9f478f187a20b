"""Reading validators, candidates and seats."""

from __future__ import annotations

from dllm_protocol import state_keys
from dllm_protocol.records import Candidate, CandidateList, SeatedValidator, SeatedValidators, ValidatorRecord
from full_node.state_machine.state import StateReader, read


def find_validator(state: StateReader, address: bytes) -> ValidatorRecord | None:
    """What is staked on the consensus key with this address; None for a stranger."""
    return read(state, state_keys.validator(address), ValidatorRecord)


def candidates(state: StateReader) -> tuple[Candidate, ...]:
    """Everyone who stands for a seat, by stake, highest first."""
    found = read(state, state_keys.CANDIDATES, CandidateList)
    return found.entries if found else ()


def seated(state: StateReader) -> tuple[SeatedValidator, ...]:
    """The validator set, by power, highest first."""
    found = read(state, state_keys.VALIDATORS, SeatedValidators)
    return found.entries if found else ()
