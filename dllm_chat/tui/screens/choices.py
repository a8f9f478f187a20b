"""The questions that are asked before something cannot be undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dllm_chat.history.records import Conversation
from dllm_chat.sanitize import clean_line
from dllm_chat.tui.screens.dialog import Choice
from dllm_chat.tui.wording import count, dllm

if TYPE_CHECKING:
    from dllm_chat.session.events import Balance


def delete_choice(conversation: Conversation) -> Choice:
    """``delete`` or ``keep``."""
    text = (
        f"“{clean_line(conversation.title, 80)}” with {count(conversation.message_count, 'message')} goes for good."
        "\nIts receipts are files of their own and stay."
    )
    answers = {"keep": ("Keep", "default"), "delete": ("Delete", "error")}
    return Choice("Delete this conversation?", text, answers, focused="keep")


def link_choice(address: str) -> Choice:
    """``open`` (web addresses only), ``copy`` or ``back``.

    Args:
        address: the whole of it, cleaned.
    """
    answers = {"back": ("Back", "default"), "copy": ("Copy", "default")}
    if address.startswith(("https://", "http://")):
        answers["open"] = ("Open", "warning")
    return Choice("This link leads to", address, answers, focused="back")


def leave_choice(balance: Balance) -> Choice:
    """``settle``, ``leave`` or ``stay``; asked where deposits are locked."""
    text = (
        f"{dllm(balance.in_sessions_udllm)} of your deposits are locked in open sessions.\n\n"
        "Settling pays for what was used and gives the rest back. Left open, the next question"
        " goes on with them and needs no new deposit; you can settle at any time."
    )
    answers = {
        "stay": ("Stay", "default"),
        "settle": ("Settle, quit", "default"),
        "leave": ("Leave open, quit", "primary"),
    }
    return Choice("Quit with open sessions?", text, answers, focused="leave")
