"""Reading sessions and their routes."""

from __future__ import annotations

from dllm_protocol import state_keys
from dllm_protocol.records import Route, Session
from dllm_protocol.refusals import UnknownSession
from full_node.state_machine.state import StateReader, read


def session(state: StateReader, session_id: bytes) -> Session:
    """A session. Raises UnknownSession."""
    found = read(state, state_keys.session(session_id), Session)
    if found is None:
        raise UnknownSession(f"no session {session_id.hex()} was ever opened")
    return found


def route(state: StateReader, session_id: bytes) -> Route:
    """The route of a session. Raises UnknownSession."""
    found = read(state, state_keys.route(session_id), Route)
    if found is None:
        raise UnknownSession(f"no route for a session {session_id.hex()}")
    return found


def is_known(state: StateReader, session_id: bytes) -> bool:
    """Whether a session id was used already."""
    return state.get(state_keys.session(session_id)) is not None
