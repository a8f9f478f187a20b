"""Tables of record fields for docs/protocol, read from the code.

``python -m tests.dllm_protocol.format_tables NAME …`` prints them; `test_format_tables` holds the documents to them.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from dllm_protocol import encoding
from dllm_protocol.encoding import Record
from tests.dllm_protocol.format_strategies import FORMAT_MODULES


def records_by_name() -> dict[str, type[Record]]:
    """Every record of the formats under its class name."""
    found: dict[str, type[Record]] = {}
    for module_name in FORMAT_MODULES:
        for value in vars(importlib.import_module(f"dllm_protocol.{module_name}")).values():
            if isinstance(value, type) and issubclass(value, Record) and value.__wire__:
                assert found.setdefault(value.__name__, value) is value
    return found


def table(record_type: type[Record]) -> list[str]:
    """Lines of a Markdown table: number, name, kind, meaning."""
    said = _meanings(record_type)
    rows = [
        f"| {field.number} | `{field.name}` | {kind_in_words(field.kind)} | {said.get(field.name, '')} |"
        for field in record_type.__wire__
    ]
    return [f"**{record_type.__name__}**", "", "| # | field | kind | meaning |", "|---|---|---|---|", *rows]


def kind_in_words(kind: Any) -> str:
    """A field's kind as the documents write it."""
    if isinstance(kind, encoding.Unsigned):
        return f"{_bound(kind.minimum)}…{_bound(kind.maximum)}"
    if isinstance(kind, encoding.ByteString):
        size = f"{kind.minimum}" if kind.minimum == kind.maximum else f"{kind.minimum}…{kind.maximum}"
        return f"{size} bytes" + (" or none" if kind.optional else "")
    if isinstance(kind, encoding.Text):
        return "name" if kind == encoding.NAME else f"text, {kind.minimum}…{kind.maximum} bytes"
    if isinstance(kind, encoding.Nested):
        return str(kind.type.__name__)
    if isinstance(kind, encoding.Optional):
        return f"{kind.type.__name__} or none"
    if isinstance(kind, encoding.ListOf):
        return f"list of {kind.minimum}…{_bound(kind.maximum)}: {kind_in_words(kind.element)}"
    names = [one.__name__ for one in kind.by_number.values()]
    return "one action" if "Transfer" in names else f"one of {', '.join(names)}"


def _bound(value: int) -> str:
    """Large powers of two and ten stay readable."""
    for exponent in range(12, 65):
        if value in (1 << exponent, (1 << exponent) - 1):
            return f"2^{exponent}" + ("" if value == 1 << exponent else "−1")
    return f"{value:,}".replace(",", " ")


def _meanings(record_type: type[Record]) -> dict[str, str]:
    """The words under each field in the source."""
    module = ast.parse(inspect.getsource(importlib.import_module(record_type.__module__)))
    found = [one for one in module.body if isinstance(one, ast.ClassDef) and one.name == record_type.__name__]
    return dict(_documented(found[0].body))


def _documented(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            yield field.target.id, " ".join(str(below.value.value).split()).replace("|", "\\|")


if __name__ == "__main__":
    known = records_by_name()
    for name in sys.argv[1:]:
        print("\n".join(table(known[name])), end="\n\n")
