"""The faucet's one address: POST a JSON object with an address, get JSON; GET says what it gives.

    POST /   {"address": "tdllm1…"}   →   {"ok": true, "data": {"tx_hash", "height", "amount_udllm", …}}
    errors                            →   {"ok": false, "error": {"code", "message", "hint"}}

A page in a browser cannot use it: a request from another origin carries Origin, and only JSON is taken.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from dllm_protocol.address import decode_address, encode_address
from dllm_protocol.errors import DllmError, NetworkUnreachable, TimedOut, TransactionRefused, UsageRefused
from full_node.faucet.errors import BadRequest, FaucetBusy, LimitReached
from full_node.faucet.grants import Grants, client_of
from full_node.faucet.payer import Payer
from full_node.rpc.guard import Door, RpcLimits, guard

MAX_BODY_BYTES = 4096
READ_TIMEOUT_S = 5.0
STOP_WAIT_S = 5.0
LIMITS = RpcLimits(body_bytes=MAX_BODY_BYTES, connections=200)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Network:
    """What the answers say of the network."""

    chain_id: str
    prefix: str
    """Bech32 prefix of addresses."""


class FaucetServer:
    """Serves one faucet."""

    def __init__(self, network: Network, payer: Payer, grants: Grants, door: Door) -> None:
        """Prepare; nothing listens before `start`."""
        self._network = network
        self._payer = payer
        self._grants = grants
        self._door = door
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Begin to listen; returns ``host:port``. Raises OSError when the address is taken."""
        application = web.Application(
            client_max_size=MAX_BODY_BYTES,
            middlewares=[_in_json(), guard(self._door, LIMITS, self._connections)],
        )
        application.router.add_post("/", self._give)
        application.router.add_get("/", self._tell)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=STOP_WAIT_S)
        await runner.setup()
        self._runner = runner
        await web.TCPSite(runner, self._door.host, self._door.port).start()
        host, port = runner.addresses[0][:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def stop(self) -> None:
        """Close every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _connections(self) -> int:
        server = self._runner.server if self._runner is not None else None
        return len(server.connections) if server is not None else 0

    async def _tell(self, _request: web.Request) -> web.Response:
        balance_udllm = await self._payer.balance_udllm()
        return _answer(
            {
                "chain_id": self._network.chain_id,
                "from": encode_address(self._network.prefix, self._payer.address),
                "amount_udllm": self._payer.amount_udllm,
                "balance_udllm": balance_udllm,
                "grants_left": self._grants.left_in_total(),
            }
        )

    async def _give(self, request: web.Request) -> web.Response:
        recipient = self._recipient(await _body(request))
        client = client_of(request.remote)
        number = self._grants.reserve(recipient, client)
        try:
            sent = await self._payer.give(recipient)
        except (FaucetBusy, NetworkUnreachable, TransactionRefused):
            self._grants.release(number)  # no copy of it is on its way; any other failure leaves that open
            raise
        log.info("gave to=%s client=%s height=%d", recipient.hex(), client, sent.height)
        return _answer(
            {
                "chain_id": self._network.chain_id,
                "address": encode_address(self._network.prefix, recipient),
                "amount_udllm": self._payer.amount_udllm,
                "tx_hash": sent.tx_hash.hex().upper(),
                "height": sent.height,
            }
        )

    def _recipient(self, raw: bytes) -> bytes:
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise BadRequest("the request is not JSON", hint='send {"address": "…"}') from error
        if not isinstance(found, dict) or set(found) != {"address"} or not isinstance(found["address"], str):
            raise BadRequest("the request is not an object with an address", hint='send {"address": "…"}')
        recipient = decode_address(found["address"], self._network.prefix)
        if recipient == self._payer.address:
            raise BadRequest("that is the faucet's own address", hint="give yours")
        return recipient


async def _body(request: web.Request) -> bytes:
    """The request's body, bounded in size and time, and JSON by its own word."""
    if request.content_type != "application/json":
        raise BadRequest(
            f"the content type is {request.content_type[:80]!r}", hint="it must be application/json"
        )
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await request.read()
    except TimeoutError as error:
        raise TimedOut(f"the request took over {READ_TIMEOUT_S:g} s") from error


def _in_json() -> Middleware:
    """Whatever is refused, and wherever, is refused in JSON."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except LimitReached as error:
            return _refusal(error, 429, {"Retry-After": str(error.retry_after_s)})
        except DllmError as error:
            if not isinstance(error, UsageRefused):
                log.warning("gave nothing: %s", error.message)
            return _refusal(error, 400 if isinstance(error, UsageRefused) else 503)
        except web.HTTPException as error:
            body = {"code": "E_HTTP", "message": error.text or error.reason, "hint": ""}
            return _envelope({"ok": False, "error": body}, error.status)

    return answer


def _refusal(error: DllmError, status: int, headers: dict[str, str] | None = None) -> web.Response:
    body = {"code": error.code, "message": error.message, "hint": error.hint}
    return _envelope({"ok": False, "error": body}, status, headers)


def _answer(data: dict[str, object]) -> web.Response:
    return _envelope({"ok": True, "data": data}, 200)


def _envelope(content: dict[str, object], status: int, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=json.dumps(content).encode() + b"\n",
        status=status,
        content_type="application/json",
        headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", **(headers or {})},
    )
