"""One call from request to response, whatever carries it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dllm_protocol.errors import DllmError
from dllm_protocol.jsonrpc.errors import RpcError, internal_error, method_not_found
from dllm_protocol.jsonrpc.params import from_json
from dllm_protocol.jsonrpc.requests import Request, failure, success
from full_node.rpc.context import JsonObject, Method, Methods, RpcContext


async def answer(context: RpcContext, methods: Methods, request: Request) -> JsonObject:
    """The response to a request; errors become part of it."""
    try:
        method = methods.get(request.method)
        if method is None:
            raise method_not_found()
        result = await invoke(context, method, from_json(method.shape, request.params))
    except RpcError as error:
        count(context, methods, request.method, error)
        return failure(request.id, error)
    count(context, methods, request.method, None)
    return success(request.id, result)


def count(context: RpcContext, methods: Methods, name: str, error: RpcError | None) -> None:
    """Notes a call for the metrics; names that nobody serves are one, for strangers choose them."""
    context.requests.add(name if name in methods else "unknown", "ok" if error is None else str(error.code))


async def invoke(context: RpcContext, method: Method, arguments: Mapping[str, Any]) -> JsonObject:
    """Runs a method. Raises RpcError for everything that a caller can cause."""
    try:
        return await method.answer(context, **arguments)
    except DllmError as error:
        raise internal_error(error.message) from error
