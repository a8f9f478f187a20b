"""Receipts as people and scripts see them."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dllm_chat.cli.output import fields, layers_text
from dllm_chat.paths import find_paths
from dllm_chat.sanitize import clean_line
from dllm_chat.session.networks import known_network
from dllm_chat.session.receipts import SUFFIX, Checked, badge_name, load_receipt
from dllm_protocol.address import PROVIDER_SUFFIX, encode_address
from dllm_protocol.bundle import LOCAL_PREFIX
from dllm_protocol.errors import DllmError, NotFound
from dllm_protocol.receipt import BADGE_LOCAL, Receipt, ReceiptBody
from dllm_protocol.units import format_dllm
from dllm_protocol.voucher import ROLE_STANDBY, VoucherLeg

NETWORK_PREFIX = "dllm"
LAST = "last"


def find_receipt(text: str) -> Path:
    """The file meant: a path, a listed name (its ending may be missing), or the newest for ``last``.

    Raises:
        NotFound
    """
    folder = find_paths().receipts
    if text == LAST:
        newest = _newest_first(folder)
        if not newest:
            raise NotFound("there are no receipts yet", hint="every answer makes one: dllm ask")
        return newest[0]
    typed = Path(text)
    if typed.exists() or typed.name != text:
        return typed
    kept = folder / (text if text.endswith(SUFFIX) else text + SUFFIX)
    return kept if kept.exists() else typed


def listed(limit: int) -> list[dict[str, Any]]:
    """The newest receipts, each with its most important figures; damaged ones with what is wrong."""
    return [_summary(path) for path in _newest_first(find_paths().receipts)[:limit]]


def described(path: Path, receipt: Receipt) -> dict[str, Any]:
    """Everything that a receipt claims."""
    body = receipt.body
    prefix = _prefix_of(body)
    return {
        "file": str(path),
        "badge": badge_name(body.badge),
        "chain_id": clean_line(body.chain_id, 60),
        "model": clean_line(body.model, 64),
        "asked": _time(body.asked_ms),
        "session": body.session.hex(),
        "providers": [
            {
                "address": encode_address(prefix + PROVIDER_SUFFIX, served.provider),
                "layers": [served.first_layer, served.end_layer],
            }
            for served in body.served
        ],
        "legs": [_leg(leg, prefix) for leg in body.voucher_after.voucher.legs],
        "tokens": {"prompt": body.prompt_tokens, "completion": body.completion_tokens},
        "cost_udllm": body.cost_udllm,
        "fees_udllm": body.fees_udllm,
        "prompt_hash": body.prompt_hash.hex(),
        "reply_hash": body.reply_hash.hex(),
        "voucher_n": body.voucher_after.voucher.n,
        "acks": len(body.acks),
        "proof_height": body.proof_height,
        "transactions": [transaction.hex() for transaction in body.transactions],
        "note": clean_line(body.note),
    }


def described_text(data: dict[str, Any]) -> str:
    """What `described` found, for people."""
    return fields(
        {name: data[name] for name in ("file", "badge", "chain_id", "session")}
        | _answer(data)
        | {
            "providers": [
                f"{one['address']} layers {layers_text(one['layers'])}" for one in data["providers"]
            ],
            "legs": [_leg_text(one) for one in data["legs"]],
            "voucher": f"number {data['voucher_n']}, acks {data['acks']}",
            "prompt_hash": data["prompt_hash"],
            "reply_hash": data["reply_hash"],
            "proofs": f"of height {data['proof_height']}",
            "transactions": data["transactions"],
            "note": data["note"],
        }
    )


def verdict(path: Path, checked: Checked, *, anchored: bool) -> tuple[dict[str, Any], str]:
    """What checking came to, as data and as words."""
    body = checked.receipt.body
    prefix = _prefix_of(body)
    state = "anchored" if anchored else "consistent but not anchored"
    data = described(path, checked.receipt) | {
        "verdict": state,
        "consistent": True,
        "anchored": anchored,
        "header": {"height": checked.header.height, "hash": checked.header.hash().hex().upper()},
        "owners": [
            {"owner": encode_address(prefix, owner), "paid_udllm": amount}
            for owner, amount in sorted(checked.owners.items())
        ],
    }
    shown: dict[str, object] = {
        "receipt": path,
        "verdict": state,
        "header": f"{checked.header.height} {data['header']['hash']}",
        "badge": data["badge"],
        **_answer(data),
    }
    paid = [f"{one['owner']} {format_dllm(one['paid_udllm'])} DLLM" for one in data["owners"]]
    shown["session paid"] = paid
    if not anchored:
        shown["not anchored"] = "no verified header of this machine leads to it; --online asks the network"
    return data, fields(shown)


def _answer(data: dict[str, Any]) -> dict[str, object]:
    """The answer and its price, for people."""
    tokens = data["tokens"]
    return {
        "model": data["model"],
        "asked": f"{data['asked']} (the asker's own word)",
        "tokens": f"{tokens['prompt']} + {tokens['completion']}",
        "cost": f"{format_dllm(data['cost_udllm'])} DLLM + {format_dllm(data['fees_udllm'])} fees",
    }


def _leg_text(leg: dict[str, Any]) -> str:
    rows = ", ".join(f"{count} {kind}" for kind, count in leg["rows"].items() if count) or "no"
    return f"{leg['provider']} {leg['role']}: {rows} rows, {format_dllm(leg['owed_udllm'])} DLLM to {leg['owner']}"


def _leg(leg: VoucherLeg, prefix: str) -> dict[str, Any]:
    """What the session owes one provider so far, and for what."""
    return {
        "provider": encode_address(prefix + PROVIDER_SUFFIX, leg.provider),
        "owner": encode_address(prefix, leg.payees[0].owner),
        "role": "standby" if leg.payees[0].role == ROLE_STANDBY else "stage",
        "rows": {
            "prompt": leg.rows.prompt,
            "kept": leg.rows.kept,
            "drafted": leg.rows.drafted,
            "replayed": leg.rows.replayed,
        },
        "owed_udllm": leg.cumulative_udllm,
    }


def _prefix_of(body: ReceiptBody) -> str:
    """What addresses of the receipt's chain begin with: its joined network says it, a receipt does not."""
    if body.badge == BADGE_LOCAL:
        return LOCAL_PREFIX
    with contextlib.suppress(
        DllmError
    ):  # a damaged bundle is reported where it is used; offline checks need none
        known = known_network(find_paths(), body.chain_id)
        if known is not None:
            return known.bundle.genesis.address_prefix
    return NETWORK_PREFIX


def _summary(path: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": path.name.removesuffix(SUFFIX), "file": str(path)}
    try:
        body = load_receipt(path).body
    except DllmError as error:
        empty = {"asked": "", "model": "", "completion_tokens": 0, "cost_udllm": 0, "cost": "", "badge": ""}
        return entry | empty | {"problem": error.message}
    return entry | {
        "asked": _time(body.asked_ms),
        "model": clean_line(body.model, 64),
        "badge": badge_name(body.badge),
        "completion_tokens": body.completion_tokens,
        "cost_udllm": body.cost_udllm,
        "cost": format_dllm(body.cost_udllm),
        "problem": "",
    }


def _newest_first(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(folder.glob("*" + SUFFIX), key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _time(milliseconds: int) -> str:
    """ISO 8601 in UTC; the number where it is no time that can be written."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return str(milliseconds)
