"""One call from request to response, whatever carries it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from dllm_protocol.errors import DllmError
from dllm_protocol.jsonrpc.errors import RpcError, internal_error, method_not_found, server_error
from dllm_protocol.jsonrpc.params import from_json
from dllm_protocol.jsonrpc.requests import Request, failure, success
from light_node.proxy.context import JsonObject, Method, ProxyContext
from light_node.proxy.errors import Unprovable
from light_node.proxy.guard import ProxyLimits
from light_node.proxy.methods import METHODS, REFUSED


class Calls:
    """Answers requests, a bounded number at once and each in bounded time."""

    def __init__(self, context: ProxyContext, limits: ProxyLimits) -> None:
        self.context = context
        self._limits = limits
        self._at_once = asyncio.Semaphore(limits.calls_at_once)

    async def answer(self, request: Request) -> JsonObject:
        """The response to a request; errors become part of it."""
        try:
            method = method_named(request.method)
            result = await self.invoke(method, from_json(method.shape, request.params))
        except RpcError as error:
            self.count(request.method, "refused")
            return failure(request.id, error)
        self.count(request.method, "ok")
        return success(request.id, result)

    def count(self, name: str, outcome: str) -> None:
        """Notes a call for the metrics; names that are not served are one, for callers choose them."""
        self.context.requests.add(name if name in METHODS else "unknown", outcome)

    async def invoke(self, method: Method, arguments: Mapping[str, Any]) -> JsonObject:
        """Run a method. Raises RpcError for everything that a caller or a full node can cause."""
        timeout_s = self._limits.call_timeout_s
        try:
            async with asyncio.timeout(timeout_s), self._at_once:
                return await method.answer(self.context, **arguments)
        except DllmError as error:
            self.context.refusals.add(error.code)
            raise refused(error) from error
        except TimeoutError as error:
            raise server_error(f"nothing could be proved within {timeout_s:g} s") from error


def method_named(name: str) -> Method:
    """A method by name. Raises RpcError, with the reason where a full node would answer."""
    method = METHODS.get(name)
    if method is not None:
        return method
    if name in REFUSED:
        raise refused(Unprovable(f"{REFUSED[name]} is proved by nothing", hint="ask a full node"))
    raise method_not_found()


def refused(error: DllmError) -> RpcError:
    """A declared error as it goes over the wire: its code, what disagreed, what to do."""
    hint = f" ({error.hint})" if error.hint else ""
    return internal_error(f"{error.code}: {error.message}{hint}")
