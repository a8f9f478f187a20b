"""JSON-RPC errors with CometBFT's numbers and words (rpc/jsonrpc/types/types.go)."""

from __future__ import annotations

from typing import Any


class RpcError(Exception):
    """An error as it goes over the wire; never leaves the server that raises it.

    Attributes:
        code: JSON-RPC error code.
        message: CometBFT's words for the code.
        data: what happened.
    """

    def __init__(self, code: int, message: str, data: str) -> None:
        super().__init__(f"{message}: {data}")
        self.code = code
        self.message = message
        self.data = data

    def body(self) -> dict[str, Any]:
        """The `error` member of a response."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.data:
            body["data"] = self.data
        return body


def parse_error(data: str) -> RpcError:
    """The bytes are not JSON."""
    return RpcError(-32700, "Parse error. Invalid JSON", data)


def invalid_request(data: str) -> RpcError:
    """JSON, but no request."""
    return RpcError(-32600, "Invalid Request", data)


def method_not_found() -> RpcError:
    """No such method here."""
    return RpcError(-32601, "Method not found", "")


def invalid_params(data: str) -> RpcError:
    """The parameters are not the method's."""
    return RpcError(-32602, "Invalid params", data)


def internal_error(data: str) -> RpcError:
    """The method failed; CometBFT answers every refusal of a method so."""
    return RpcError(-32603, "Internal error", data)


def server_error(data: str) -> RpcError:
    """The server gave up on something, e.g. a subscription that fell behind."""
    return RpcError(-32000, "Server error", data)
