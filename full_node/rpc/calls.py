"""One call from request to response, whatever carries it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dllm_protocol.errors import DllmError
from full_node.rpc.context import JsonObject, Method, Methods, RpcContext
from full_node.rpc.errors import RpcError, internal_error, invalid_request, method_not_found, parse_error
from full_node.rpc.params import from_json

log = logging.getLogger(__name__)
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


async def answer(context: RpcContext, methods: Methods, request: Request) -> JsonObject:
    """The response to a request; errors become part of it."""
    try:
        method = methods.get(request.method)
        if method is None:
            raise method_not_found()
        result = await invoke(context, method, from_json(method.shape, request.params))
    except RpcError as error:
        return failure(request.id, error)
    return success(request.id, result)


async def invoke(context: RpcContext, method: Method, arguments: Mapping[str, Any]) -> JsonObject:
    """Runs a method. Raises RpcError for everything that a caller can cause."""
    try:
        return await method.answer(context, **arguments)
    except DllmError as error:
        raise internal_error(error.message) from error


def success(request_id: RequestId, result: object) -> JsonObject:
    """A response with a result."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def failure(request_id: RequestId, error: RpcError) -> JsonObject:
    """A response with an error."""
    return {"jsonrpc": "2.0", "id": request_id, "error": error.body()}
