"""Text from strangers, made harmless before anything parses or shows it.

A terminal obeys what it is shown: escape sequences write the clipboard, move the cursor, fake a dialog. So every
string from the network loses its control characters and the characters that reorder text, once before it is
parsed, and once more after Markdown has decoded entities such as ``&#x202E;``.
"""

from __future__ import annotations

_KEPT = {"\n", "\t"}
_BIDI = [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C]
_DROPPED: dict[int, None] = {
    code: None
    for code in [
        *range(0x20),
        0x7F,
        *range(0x80, 0xA0),
        *_BIDI,
        0x2028,
        0x2029,
        0xFEFF,
        *range(0xE0000, 0xE0080),
    ]
    if chr(code) not in _KEPT
}
_DROPPED_LINE: dict[int, str | None] = {**_DROPPED, ord("\n"): " ", ord("\t"): " "}


def clean(text: str) -> str:
    """The text without control and bidi characters; line feeds and tabs stay."""
    return text.translate(_DROPPED)


def clean_line(text: str, limit: int = 200) -> str:
    """One harmless line of at most ``limit`` characters: names, errors, memos."""
    line = text.translate(_DROPPED_LINE)
    return line if len(line) <= limit else line[: limit - 1] + "…"
