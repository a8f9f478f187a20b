"""Any value of any record, made from the kinds of its fields."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from dllm_protocol import encoding
from dllm_protocol.encoding import Record

FORMAT_MODULES = (
    "transaction",
    "actions.accounts",
    "actions.models",
    "actions.providers",
    "actions.sessions",
    "actions.validators",
    "records",
    "params",
    "pricing",
    "voucher",
    "holder_book",
    "offer_book",
    "genesis",
    "bundle",
    "model_manifest",
    "vocabulary",
    "relay",
    "seeding_place",
)


def record_types() -> list[type[Record]]:
    """Every record of the formats that are stored, signed or hashed, by module and name."""
    found: dict[str, type[Record]] = {}
    for name in FORMAT_MODULES:
        module: ModuleType = importlib.import_module(f"dllm_protocol.{name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Record) and value.__wire__:
                found[f"{value.__module__}.{value.__name__}"] = value
    return [found[name] for name in sorted(found)]


def values(record_type: type[Record]) -> st.SearchStrategy[Any]:
    """Any record of a type, small lists."""
    fields = {field.name: _of_kind(field.kind) for field in record_type.__wire__}
    return st.builds(record_type, **fields)


def _of_kind(kind: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, encoding.Unsigned):
        edges = st.sampled_from((kind.minimum, kind.maximum, max(kind.minimum, min(kind.maximum, 1))))
        return st.one_of(edges, st.integers(kind.minimum, kind.maximum))
    if isinstance(kind, encoding.ByteString):
        some = st.binary(min_size=kind.minimum, max_size=min(kind.maximum, kind.minimum + 8))
        return st.one_of(st.just(b""), some) if kind.optional else some
    if isinstance(kind, encoding.Text):
        if kind.allowed is not None:
            characters = st.sampled_from(sorted(kind.allowed))
        else:
            characters = st.characters(exclude_categories=("Cc", "Cs"))
        longest = min(kind.maximum // 4, 6)
        return st.text(characters, min_size=kind.minimum, max_size=max(longest, kind.minimum))
    if isinstance(kind, encoding.Nested):
        return st.deferred(lambda: values(kind.type))
    if isinstance(kind, encoding.Optional):
        return st.one_of(st.none(), st.deferred(lambda: values(kind.type)))
    if isinstance(kind, encoding.ListOf):
        longest = max(kind.minimum, min(kind.maximum, 2))
        return st.lists(_of_kind(kind.element), min_size=kind.minimum, max_size=longest).map(tuple)
    if isinstance(kind, encoding.OneOf):
        return st.one_of([st.deferred(lambda t=t: values(t)) for t in kind.by_number.values()])  # type: ignore[misc]  # bound per type
    raise TypeError(f"no strategy for {kind!r}")
