"""Failures that belong to no place on screen."""

from __future__ import annotations

from textual.app import App

from dllm_chat.sanitize import clean_line
from dllm_protocol.errors import DllmError

STAYS_S = 12.0


def complain(app: App[None], error: DllmError) -> None:
    """Show code, message and hint for a while; what strangers wrote in them is cleaned and is never markup."""
    hint = f"\n→ {clean_line(error.hint)}" if error.hint else ""
    app.notify(
        f"{clean_line(error.message, 400)}{hint}",
        title=clean_line(error.code, 40),
        severity="error",
        timeout=STAYS_S,
        markup=False,
    )


def say_worker_failed(app: App[None], why: str) -> None:
    """Show the whole reason, of which the status line has room for the beginning only."""
    app.notify(
        clean_line(why, 400),
        title="The worker ended",
        severity="error",
        timeout=STAYS_S,
        markup=False,
    )
