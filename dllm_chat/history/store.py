"""The history of conversations: one SQLite file, written as answers stream, found again by any word."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from dllm_chat.history.records import Conversation, Message, MessageState, Outcome, Role, SearchHit
from dllm_chat.history.schema import open_database
from dllm_chat.history.search import MAX_HITS, search
from dllm_chat.sanitize import clean, clean_line

TITLE_LIMIT = 80
MAX_TEXT = 4_000_000
"""Characters of one message that are kept."""

_CONVERSATION = (
    "SELECT c.id, c.title, c.created_s, c.updated_s, count(m.id), coalesce(sum(m.cost_udllm + m.fees_udllm), 0)"
    " FROM conversations c LEFT JOIN messages m ON m.conversation_id = c.id"
)
_MESSAGE = (
    "SELECT id, conversation_id, role, created_s, state, text, model, badge, providers, prompt_tokens,"
    " completion_tokens, cost_udllm, fees_udllm, receipt, notes, error_code, error_message, error_hint"
    " FROM messages"
)


class History:
    """All conversations of a home. Calls are short and synchronous; not for several threads at once."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Open or create the file.

        Args:
            path: the database.
            clock: Unix time in seconds.

        Raises:
            BadHistory: the file is not a history that this program can read.
        """
        self._connection = open_database(path)
        self._clock = clock

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    # Conversations

    def conversations(self, limit: int = 500) -> list[Conversation]:
        """The latest ones, newest first."""
        newest = "SELECT id FROM conversations ORDER BY updated_s DESC, id DESC LIMIT ?"
        rows = self._connection.execute(
            f"{_CONVERSATION} WHERE c.id IN ({newest}) GROUP BY c.id ORDER BY c.updated_s DESC, c.id DESC",
            (limit,),
        )
        return [Conversation(*row) for row in rows]

    def conversation(self, conversation_id: int) -> Conversation | None:
        """One by its id; None when it was deleted."""
        row = self._connection.execute(
            f"{_CONVERSATION} WHERE c.id = ? GROUP BY c.id", (conversation_id,)
        ).fetchone()
        return Conversation(*row) if row else None

    def new_conversation(self, title: str) -> int:
        """Add one; its id."""
        now_s = self._now_s()
        return self._insert(
            "INSERT INTO conversations (title, created_s, updated_s) VALUES (?, ?, ?)",
            (clean_line(title.strip(), TITLE_LIMIT), now_s, now_s),
        )

    def rename(self, conversation_id: int, title: str) -> None:
        """Give it another title."""
        self._connection.execute(
            "UPDATE conversations SET title = ? WHERE id = ?",
            (clean_line(title.strip(), TITLE_LIMIT), conversation_id),
        )

    def delete(self, conversation_id: int) -> None:
        """Remove it with all its messages; receipts are files of their own and stay."""
        self._connection.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))

    # Messages

    def messages(
        self, conversation_id: int, *, limit: int, before: int | None = None, after: int | None = None
    ) -> list[Message]:
        """A page of a conversation in its order.

        Args:
            limit: how many at most.
            before: only messages older than this id, the latest of them.
            after: only messages newer than this id, the earliest of them; not together with ``before``.
        """
        if after is not None:
            rows = self._connection.execute(
                f"{_MESSAGE} WHERE conversation_id = ? AND id > ? ORDER BY id LIMIT ?",
                (conversation_id, after, limit),
            )
            return [_message(row) for row in rows]
        newest_first = self._connection.execute(
            f"{_MESSAGE} WHERE conversation_id = ? AND id < ? ORDER BY id DESC LIMIT ?",
            (conversation_id, before if before is not None else 1 << 62, limit),
        )
        return [_message(row) for row in newest_first][::-1]

    def message(self, message_id: int) -> Message | None:
        """One by its id."""
        row = self._connection.execute(f"{_MESSAGE} WHERE id = ?", (message_id,)).fetchone()
        return _message(row) if row else None

    def add_question(self, conversation_id: int, text: str) -> int:
        """Add what the person asked; its id."""
        return self._add(conversation_id, Role.USER, Outcome(MessageState.COMPLETE, text))

    def begin_answer(self, conversation_id: int) -> int:
        """Add an empty partial answer, to be saved as it streams; its id."""
        return self._add(conversation_id, Role.ASSISTANT, Outcome(MessageState.PARTIAL, ""))

    def save_answer(self, message_id: int, outcome: Outcome) -> None:
        """Replace what is known of an answer."""
        self._connection.execute(
            "UPDATE messages SET state = ?, text = ?, model = ?, badge = ?, providers = ?, prompt_tokens = ?,"
            " completion_tokens = ?, cost_udllm = ?, fees_udllm = ?, receipt = ?, notes = ?, error_code = ?,"
            " error_message = ?, error_hint = ? WHERE id = ?",
            (*_columns(outcome), message_id),
        )

    def drop_message(self, message_id: int) -> None:
        """Take a message away, as when a question was refused before anything happened."""
        self._connection.execute("DELETE FROM messages WHERE id = ?", (message_id,))

    # Finding, settings

    def search(self, words: str, limit: int = MAX_HITS) -> list[SearchHit]:
        """Where all the words stand, in titles and texts of all conversations."""
        return search(self._connection, words, limit)

    def setting(self, name: str) -> str:
        """What the screens remember under a name; empty when nothing."""
        row = self._connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def remember(self, name: str, value: str) -> None:
        """Keep a setting of the screens."""
        self._connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (name, value))

    # Inside

    def _now_s(self) -> int:
        return int(self._clock())

    def _insert(self, statement: str, values: tuple[object, ...]) -> int:
        row_id = self._connection.execute(statement, values).lastrowid
        if row_id is None:
            raise sqlite3.InternalError("the new row has no id")
        return row_id

    def _add(self, conversation_id: int, role: Role, outcome: Outcome) -> int:
        now_s = self._now_s()
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(
                "UPDATE conversations SET updated_s = ? WHERE id = ?", (now_s, conversation_id)
            )
            return self._insert(
                "INSERT INTO messages (conversation_id, role, created_s, state, text, model, badge, providers,"
                " prompt_tokens, completion_tokens, cost_udllm, fees_udllm, receipt, notes, error_code,"
                " error_message, error_hint) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (conversation_id, role.value, now_s, *_columns(outcome)),
            )


def _columns(outcome: Outcome) -> tuple[object, ...]:
    return (
        outcome.state.value,
        clean(outcome.text[:MAX_TEXT]),
        clean_line(outcome.model),
        clean_line(outcome.badge, 20),
        " ".join(clean_line(provider).replace(" ", "") for provider in outcome.providers),
        outcome.prompt_tokens,
        outcome.completion_tokens,
        outcome.cost_udllm,
        outcome.fees_udllm,
        clean_line(outcome.receipt, 4096),
        "\n".join(clean_line(note) for note in outcome.notes),
        clean_line(outcome.error_code, 40),
        clean_line(outcome.error_message, 1000),
        clean_line(outcome.error_hint, 1000),
    )


def _message(row: tuple[object, ...]) -> Message:
    (message_id, conversation_id, role, created_s, state, text, model, badge, providers, *rest) = row
    prompt_tokens, completion_tokens, cost_udllm, fees_udllm, receipt, notes, code, message, hint = rest
    return Message(
        _int(message_id),
        _int(conversation_id),
        Role(str(role)),
        _int(created_s),
        Outcome(
            MessageState(str(state)),
            str(text),
            str(model),
            str(badge),
            tuple(str(providers).split()),
            _int(prompt_tokens),
            _int(completion_tokens),
            _int(cost_udllm),
            _int(fees_udllm),
            str(receipt),
            tuple(str(notes).splitlines()),
            str(code),
            str(message),
            str(hint),
        ),
    )


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise sqlite3.DataError(f"a number was expected, the history holds {value!r}")
    return value
