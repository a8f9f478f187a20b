"""How amounts, addresses and times read on screen."""

from __future__ import annotations

import time

from dllm_protocol.units import format_dllm

_DAY_S = 86_400


def dllm(amount_udllm: int) -> str:
    """``0.0012 DLLM``: exact, nothing rounded away."""
    return f"{format_dllm(amount_udllm)} DLLM"


def short_address(address: str) -> str:
    """``local1qx8f…3k2m``: the prefix and both ends, enough to tell providers apart at a glance."""
    prefix, separator, rest = address.rpartition("1")
    if not separator or len(rest) <= 10:
        return address
    return f"{prefix}1{rest[:4]}…{rest[-4:]}"


def count(number: int, noun: str) -> str:
    """``1 token``, ``12 tokens``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(size_bytes: int) -> str:
    """``4.7 GB``, in powers of ten as model pages give them."""
    if size_bytes >= 10**9:
        return f"{size_bytes / 10**9:.1f} GB"
    return f"{max(1, size_bytes // 10**6)} MB"


def age(then_s: int, now_s: float) -> str:
    """When something was, in local time, as short as it can be said: ``14:02``, ``yesterday``, ``12 Nov``."""
    then, now = time.localtime(then_s), time.localtime(now_s)
    if then[:3] == now[:3]:
        return time.strftime("%H:%M", then)
    if time.localtime(now_s - _DAY_S)[:3] == then[:3]:
        return "yesterday"
    day = f"{then.tm_mday} {time.strftime('%b', then)}"
    return day if then.tm_year == now.tm_year else f"{day} {then.tm_year}"
