"""Requests and responses, whatever carries them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dllm_protocol.jsonrpc.errors import RpcError, invalid_request, parse_error

RequestId = str | int | None
URI_ID = -1
"""CometBFT's id in answers to a GET."""
_JSON_DEPTH_MESSAGE = "error unmarshalling request: too deep"


@dataclass(frozen=True, slots=True)
class Request:
    """One JSON-RPC request; a notification has no id and gets no answer."""

    id: RequestId
    method: str
    params: object
    is_notification: bool


def load_json(body: bytes | str) -> object:
    """Reads JSON. Raises RpcError."""
    try:
        return json.loads(body)
    except RecursionError as error:
        raise parse_error(_JSON_DEPTH_MESSAGE) from error
    except ValueError as error:
        raise parse_error(f"error unmarshalling request: {error}") from error


def request_from(value: object) -> Request:
    """Reads one request. Raises RpcError."""
    if not isinstance(value, Mapping):
        raise invalid_request(f"a request is an object, not {type(value).__name__}")
    number = value.get("id")
    if isinstance(number, bool) or not isinstance(number, str | int | None):
        raise invalid_request(f"the id must be text or a number, not {type(number).__name__}")
    method = value.get("method")
    if not isinstance(method, str):
        raise invalid_request("the request names no method")
    return Request(number, method, value.get("params"), "id" not in value)


def success(request_id: RequestId, result: object) -> dict[str, Any]:
    """A response with a result."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def failure(request_id: RequestId, error: RpcError) -> dict[str, Any]:
    """A response with an error."""
    return {"jsonrpc": "2.0", "id": request_id, "error": error.body()}
