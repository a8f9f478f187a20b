"""Who is named as asked is who is asked."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from dllm_chat.session.conversation import Chain, Conversation
from dllm_chat.session.events import AskOptions
from dllm_chat.session.saved import SavedSession
from dllm_protocol.address import encode_address
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.pricing import RowPrices
from dllm_protocol.records import RouteStage
from tests.dllm_chat.session.test_saved import session

FIRST, STANDBY = b"\1" * 20, b"\3" * 20


def routed(saved: SavedSession) -> tuple[str, list[str]]:
    chain = cast(Chain, SimpleNamespace(prefix="local"))
    conversation = Conversation(chain, AskOptions(), "m", {})
    conversation._lineup = cast(Any, SimpleNamespace(saved=saved))
    session_id, shares = conversation._routed()
    return session_id, [share.address for share in shares]


def with_standby() -> SavedSession:
    found = session(1)
    (stage,) = found.route.stages
    standby = BookEntry(STANDBY, b"\4" * 20, 0, 4, RowPrices(1, 2, 3, 5), 8, 500_000)
    return replace(found, route=replace(found.route, stages=(RouteStage(stage.stage, standby),)))


def test_a_session_that_is_used_again_names_the_standby_of_a_provider_that_failed_in_it() -> None:
    saved = with_standby()
    assert routed(saved) == ("01" * 32, [encode_address("localprov", FIRST)])
    failed = replace(saved, failed=(FIRST,))
    assert routed(failed) == ("01" * 32, [encode_address("localprov", STANDBY)])
    assert routed(replace(saved, failed=(STANDBY,)))[1] == [encode_address("localprov", FIRST)]
