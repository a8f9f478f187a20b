"""`dllm session list|close`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dllm_chat.cli.command import command, group
from dllm_chat.cli.output import Report, table
from dllm_chat.cli.passwords import PasswordFd, PasswordFile
from dllm_chat.cli.service import paying, watching
from dllm_protocol.errors import NotFound, UsageRefused
from dllm_protocol.units import format_dllm

app = group(
    """Sessions hold a deposit; closing them settles what was used and returns the rest.

    \b
      dllm session list
      dllm session close --all
      dllm session close 4f2a
    """
)


@command(app, "list")
async def list_sessions(
    every: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
) -> Report:
    """Sessions of your account with deposit, what is spent, what is left and who serves; proved."""
    from dllm_chat.cli.sessions import session_data

    async with watching() as service:
        chain = service.chain
        saved = chain.sessions.store.all(chain.chain_id, chain.purse.account, open_only=not every)
        height = await chain.reads.provable_height()
        found = [await session_data(chain, one, height) for one in saved]
    rows = [
        (
            one["session"][:16],
            one["status"],
            one["model"],
            format_dllm(one["deposit_udllm"]),
            format_dllm(one["spent_udllm"]),
            format_dllm(one["left_udllm"]),
            ", ".join(share["address"] for share in one["route"]),
        )
        for one in found
    ]
    heads = ("SESSION", "STATUS", "MODEL", "DEPOSIT", "SPENT", "LEFT", "PROVIDERS")
    return Report(
        {"sessions": found, "height": height}, table(heads, rows) if rows else "no sessions are open"
    )


@command(app, "close")
async def close(
    session: Annotated[str, typer.Argument(help="A session's id, or how it begins.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Every open session.")] = False,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
) -> Report:
    """Settle: providers are paid what vouchers say, the rest of the deposit comes back."""
    if bool(session) == every:
        raise UsageRefused("say which session to close, or --all", hint="dllm session list shows them")
    async with paying(password_file, password_fd) as service:
        chain = service.chain
        saved = chain.sessions.store.all(chain.chain_id, chain.purse.account, open_only=True)
        ids = [one.route.session for one in saved]
        if every:
            closed = await service.close_all()
        else:
            closed = [await service.close_session(_meant(session, ids))]
        busy = len(ids) - len(closed) if every else 0
    data = [_closed_data(one) for one in closed]
    lines = [_closed_text(one) for one in data]
    if busy:
        lines.append(f"{busy} in use by another dllm: not closed")
    return Report({"closed": data, "in_use": busy}, "\n".join(lines) or "no sessions were open")


def _meant(text: str, ids: list[bytes]) -> bytes:
    found = [one for one in ids if one.hex().startswith(text.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(f"no open session of yours begins with {text[:64]!r}", hint="dllm session list")
    raise UsageRefused(f"{len(found)} sessions begin with {text[:64]!r}", hint="type more of it")


def _closed_data(closed: Any) -> dict[str, Any]:
    return {
        "session": closed.session.hex(),
        "settled": closed.settled,
        "paid_udllm": closed.paid_udllm,
        "refund_udllm": closed.refund_udllm,
        "fee_udllm": closed.fee_udllm,
        "until_ms": closed.until_ms,
    }


def _closed_text(one: dict[str, Any]) -> str:
    name = one["session"][:16]
    if not one["settled"]:
        return f"{name}  closing: the provider may still claim; close again in a while to get the rest back"
    paid, refund = format_dllm(one["paid_udllm"]), format_dllm(one["refund_udllm"])
    return f"{name}  paid {paid} DLLM, {refund} DLLM came back, fee {format_dllm(one['fee_udllm'])} DLLM"
