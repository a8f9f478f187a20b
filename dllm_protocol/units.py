"""Amounts: one DLLM is 1,000,000 udllm; everything inside is an integer of udllm."""

from __future__ import annotations

from dllm_protocol.errors import UsageRefused

UDLLM_PER_DLLM = 1_000_000
DECIMALS = 6
MAX_SUPPLY_UDLLM = (1 << 60) - 1


class BadAmount(UsageRefused):
    """Text that is not an exact amount of DLLM."""

    code = "E_AMOUNT"


def parse_dllm(text: str) -> int:
    """Exact udllm of a decimal amount of DLLM such as ``1.5``.

    Raises:
        BadAmount: not plain decimal digits, more than six places, zero, or above the supply bound.
    """
    whole, point, fraction = text.strip().partition(".")
    if not (whole + fraction).isascii() or not (whole + fraction).isdigit() or (point and not fraction):
        raise BadAmount(
            f"{text[:40]!r} is not an amount", hint="write DLLM as digits with at most one point: 1.5"
        )
    if len(fraction) > DECIMALS:
        raise BadAmount(
            f"{text[:40]} has {len(fraction)} decimal places, DLLM has {DECIMALS}",
            hint="the smallest amount is 0.000001",
        )
    if len(whole) > 20:
        raise BadAmount(f"{whole[:20]}… is more than there can ever be")
    amount_udllm = int(whole or "0") * UDLLM_PER_DLLM + int(fraction.ljust(DECIMALS, "0"))
    if amount_udllm == 0:
        raise BadAmount("the amount is zero")
    if amount_udllm > MAX_SUPPLY_UDLLM:
        raise BadAmount(f"{text[:40]} DLLM is more than there can ever be")
    return amount_udllm


def format_dllm(amount_udllm: int) -> str:
    """Exact decimal text of an amount in DLLM, without trailing zeros: 1500000 → ``1.5``."""
    sign = "-" if amount_udllm < 0 else ""
    whole, fraction = divmod(abs(amount_udllm), UDLLM_PER_DLLM)
    digits = f"{fraction:06d}".rstrip("0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"
