"""Validators, proved, in JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dllm_chat.session.conversation import Chain
from dllm_protocol import state_keys
from dllm_protocol.address import address_of, encode_address
from dllm_protocol.errors import NotFound, UsageRefused
from dllm_protocol.records import CandidateList, SeatedValidators, ValidatorRecord
from dllm_protocol.staking import power_of_stake

_ADDRESS_BYTES, _KEY_BYTES = 20, 32
_PPM = 1_000_000


class BadValidatorAddress(UsageRefused):
    """Text that is neither a validator's address nor its public key."""

    code = "E_VALIDATOR_ADDRESS"


def validator_address(text: str) -> bytes:
    """The address of a consensus key, from itself or from the key, in hexadecimal. Raises BadValidatorAddress."""
    try:
        raw = bytes.fromhex(text.strip())
    except ValueError:
        raw = b""
    if len(raw) == _ADDRESS_BYTES:
        return raw
    if len(raw) == _KEY_BYTES:
        return address_of(raw)
    raise BadValidatorAddress(
        f"{text[:70]!r} is not a validator: 40 hexadecimal digits of its address, or 64 of its public key",
        hint="dllm validator list",
    )


def shown_address(address: bytes) -> str:
    """As CometBFT and block explorers write it."""
    return address.hex().upper()


def time_text(time_ms: int) -> str:
    """Block time for people, in UTC."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


async def validators_data(chain: Chain) -> dict[str, Any]:
    """Everybody with a seat and everybody who waits for one, proved at one height."""
    height = await chain.reads.provable_height()
    seated = await chain.reads.record(SeatedValidators, state_keys.VALIDATORS, height)
    standing = await chain.reads.record(CandidateList, state_keys.CANDIDATES, height)
    params = await chain.sender.params()
    powers = {address_of(one.public_key): one.power for one in (seated.entries if seated else ())}
    total = sum(powers.values())
    stakes = {one.validator: one.stake_udllm for one in (standing.entries if standing else ())}
    # Who has a seat without standing for one was jailed when nobody else was left.
    everybody = [*stakes, *(address for address in powers if address not in stakes)]
    return {
        "validators": [
            {
                "validator": shown_address(address),
                "stake_udllm": stakes.get(address, 0),
                "power": powers.get(address, power_of_stake(stakes.get(address, 0))),
                "seated": address in powers,
                "share_ppm": powers.get(address, 0) * _PPM // total if total else 0,
            }
            for address in everybody
        ],
        "seated": len(powers),
        "seats": params.max_validators,
        "min_stake_udllm": params.min_stake_udllm,
        "height": height,
    }


async def find_validator(chain: Chain, text: str, height: int | None = None) -> ValidatorRecord:
    """What is staked on a validator's key.

    Raises:
        BadValidatorAddress, NotFound
    """
    address = validator_address(text)
    found = await chain.reads.record(ValidatorRecord, state_keys.validator(address), height)
    if found is None:
        raise NotFound(f"nobody stakes on the validator {shown_address(address)}", hint="dllm validator list")
    return found


async def validator_data(chain: Chain, text: str) -> dict[str, Any]:
    """Everything proved about one validator. Raises as `find_validator`."""
    height = await chain.reads.provable_height()
    found = await find_validator(chain, text, height)
    seated = await chain.reads.record(SeatedValidators, state_keys.VALIDATORS, height)
    powers = {one.public_key: one.power for one in (seated.entries if seated else ())}
    return {
        "validator": shown_address(address_of(found.public_key)),
        "public_key": found.public_key.hex(),
        "owner": encode_address(chain.prefix, found.owner),
        "stake_udllm": found.stake_udllm,
        "power": powers.get(found.public_key, 0),
        "seated": found.public_key in powers,
        "jailed": bool(found.jailed),
        "unbonding": [
            {"amount_udllm": one.amount_udllm, "release_time_ms": one.release_time_ms}
            for one in found.unbonding
        ],
        "height": height,
    }
