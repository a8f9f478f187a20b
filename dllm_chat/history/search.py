"""Searching all conversations: words as people type them, made safe for FTS5, and the finds as values."""

from __future__ import annotations

import sqlite3

from dllm_chat.history.records import Role, SearchHit
from dllm_chat.sanitize import clean

MAX_WORDS = 12
MAX_HITS = 50
# The stored text holds no control characters, so these can mark matches.
_BEGIN, _END = "\x02", "\x03"
_SNIPPET_WORDS = 14


def fts_query(words: str) -> str:
    """An FTS5 query that finds messages holding every word; the last may be unfinished. Empty: nothing to find.

    Each word becomes a quoted string, so no character of it is an operator.
    """
    parts = clean(words).split()[:MAX_WORDS]
    quoted = ['"' + part.replace('"', '""') + '"' for part in parts if any(map(str.isalnum, part))]
    return " ".join([*quoted[:-1], quoted[-1] + "*"]) if quoted else ""


def search(connection: sqlite3.Connection, words: str, limit: int = MAX_HITS) -> list[SearchHit]:
    """Titles first, then messages by relevance; at most ``limit``. A title whose messages are found is left out."""
    query = fts_query(words)
    if not query:
        return []
    messages = _messages(connection, query, limit)
    found = {hit.conversation_id for hit in messages}
    titles = [hit for hit in _titles(connection, words, limit) if hit.conversation_id not in found]
    return [*titles, *messages][:limit]


def _messages(connection: sqlite3.Connection, query: str, limit: int) -> list[SearchHit]:
    rows = connection.execute(
        "SELECT c.id, m.id, c.title, m.role, c.updated_s, snippet(messages_text, 0, ?, ?, '…', ?)"
        " FROM messages_text JOIN messages m ON m.id = messages_text.rowid"
        " JOIN conversations c ON c.id = m.conversation_id"
        " WHERE messages_text MATCH ? ORDER BY bm25(messages_text), m.id DESC LIMIT ?",
        (_BEGIN, _END, _SNIPPET_WORDS, query, limit),
    )
    return [
        SearchHit(conversation, message, title, Role(role), updated_s, _pieces(snippet))
        for conversation, message, title, role, updated_s, snippet in rows
    ]


def _titles(connection: sqlite3.Connection, words: str, limit: int) -> list[SearchHit]:
    escaped = words.strip().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    rows = connection.execute(
        "SELECT id, title, updated_s FROM conversations WHERE title LIKE ? ESCAPE '\\'"
        " ORDER BY updated_s DESC, id DESC LIMIT ?",
        (f"%{escaped}%", min(limit, 10)),
    )
    return [
        SearchHit(conversation, None, title, None, updated_s, ((title, False),))
        for conversation, title, updated_s in rows
    ]


def _pieces(snippet: str) -> tuple[tuple[str, bool], ...]:
    pieces: list[tuple[str, bool]] = []
    for part in snippet.split(_BEGIN):
        matched, end, rest = part.partition(_END)
        if end:
            pieces += [(matched, True), (rest, False)]
        else:
            pieces.append((part, False))
    return tuple((" ".join(text.split("\n")), matched) for text, matched in pieces if text)
