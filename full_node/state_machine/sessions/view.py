"""Reading sessions and their routes."""

from __future__ import annotations

from dllm_protocol import state_keys
from dllm_protocol.protobuf import without_list
from dllm_protocol.records import Route, Session
from dllm_protocol.refusals import UnknownSession
from full_node.state_machine.state import StateReader, read

LOADS_FIELD = next(field.number for field in Route.__wire__ if field.name == "loads")


def session(state: StateReader, session_id: bytes) -> Session:
    """A session. Raises UnknownSession."""
    found = read(state, state_keys.session(session_id), Session)
    if found is None:
        raise UnknownSession(f"no session {session_id.hex()} was ever opened")
    return found


def route(state: StateReader, session_id: bytes) -> Route:
    """The route of a session without its loads. Raises UnknownSession.

    Loads may be as many as the book has offers, and whoever claims or closes needs none of them and pays for none.
    """
    raw = state.get(state_keys.route(session_id))
    if raw is None:
        raise UnknownSession(f"no route for a session {session_id.hex()}")
    return Route.decode(without_list(raw, LOADS_FIELD))


def is_known(state: StateReader, session_id: bytes) -> bool:
    """Whether a session id was used already."""
    return state.get(state_keys.session(session_id)) is not None
