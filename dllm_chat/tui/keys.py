"""The chat's keys; each has an id, under which it can be put on another key."""

from __future__ import annotations

from textual.binding import Binding

CHAT_BINDINGS = (
    Binding("escape", "stop", "Stop", id="chat.stop", priority=True),
    Binding("ctrl+n", "new", "New", id="chat.new", priority=True),
    Binding("ctrl+f", "search", "Search", id="chat.search", priority=True),
    Binding("ctrl+o", "model", "Model", id="chat.model", priority=True),
    Binding("ctrl+g", "contribute", "Contribute", id="chat.contribute", priority=True),
    Binding("f2,ctrl+r", "rename", "Rename", id="chat.rename", show=False, priority=True),
    Binding("ctrl+d", "delete", "Delete", id="chat.delete", show=False, priority=True),
    Binding("f3,ctrl+b", "sidebar", "Conversations", id="chat.sidebar", show=False, priority=True),
    Binding("pageup", "scroll(-1)", show=False, id="chat.page_up", priority=True),
    Binding("pagedown", "scroll(1)", show=False, id="chat.page_down", priority=True),
    Binding("f1", "help", "Help", id="chat.help", priority=True),
)
"""Of the chat itself: they come before the prompt's own, and rest while a dialog is open."""

CHAT_ACTIONS = frozenset(binding.action.partition("(")[0] for binding in CHAT_BINDINGS)
"""Names of what those keys do."""
