"""Finding transactions: tx, tx_search. Each one found is proved; that there are no others is not."""

from __future__ import annotations

from dllm_protocol.block_json import merkle_proof_to_json, tx_result_to_json
from dllm_protocol.json_shape import to_base64, to_hex
from dllm_protocol.jsonrpc.errors import internal_error
from dllm_protocol.jsonrpc.params import Kind
from dllm_protocol.jsonrpc.query import parse_query
from light_node.answers import TxAnswer
from light_node.errors import AnswerRefused
from light_node.proxy.context import JsonObject, Method, Methods, ProxyContext, page_of
from light_node.proxy.errors import Unprovable
from light_node.proxy.proving import ProvedTx
from light_node.proxy.tags import fits, require_served, tags_of

MATCHES_MAX = 500
"""A search is proved whole before a page of it is shown, so that its count is no claim of the node's."""
UPSTREAM_PAGE = 100


async def tx(context: ProxyContext, hash: bytes | None, prove: bool | None) -> JsonObject:
    """A transaction with its result, proved whether the caller wants to see the proof or not."""
    name = hash or b""
    found = await context.proving.transaction(name)
    if found is None:
        raise Unprovable(
            f"tx ({to_hex(name)}) not found: so says the node, and nothing proves it",
            hint="the sequence of its account, read by abci_query, tells whether it can still come",
        )
    return _shown(found, prove=bool(prove))


async def tx_search(
    context: ProxyContext,
    query: str | None,
    prove: bool | None,
    page: int | None,
    per_page: int | None,
    order_by: str | None,
) -> JsonObject:
    """Transactions by hash, height, payer, sender or recipient; `total_count` counts those that were proved."""
    if order_by not in (None, "", "asc", "desc"):
        raise internal_error("expected order_by to be either `asc` or `desc` or empty")
    wanted = parse_query(query or "")
    require_served(wanted)
    found: dict[tuple[int, int], ProvedTx] = {}
    for answer in await _claimed(context, wanted.text):
        proved = await context.proving.proved_tx(answer)
        if not fits(wanted, tags_of(answer.tx, proved.result, answer.height), answer.height):
            raise AnswerRefused(
                f"asked for {wanted.text!r}, the node shows transaction {to_hex(answer.hash)}, which does not fit"
            )
        found[answer.height, answer.index] = proved
    ordered = [found[place] for place in sorted(found, reverse=order_by == "desc")]
    first, last = page_of(page, per_page, len(ordered))
    shown = [_shown(one, prove=bool(prove)) for one in ordered[first:last]]
    return {"txs": shown, "total_count": str(len(ordered))}


async def _claimed(context: ProxyContext, query: str) -> list[TxAnswer]:
    """All that the node finds, believed by nobody yet."""
    claimed: list[TxAnswer] = []
    for page in range(1, MATCHES_MAX // UPSTREAM_PAGE + 1):
        answers, total = await context.proving.upstream.tx_search(query, page, UPSTREAM_PAGE)
        if total > MATCHES_MAX:
            raise Unprovable(
                f"{total} transactions are said to match, at most {MATCHES_MAX} are proved at once",
                hint="narrow the query by tx.height",
            )
        claimed.extend(answers)
        if len(claimed) >= total or not answers:
            break
    return claimed


def _shown(found: ProvedTx, *, prove: bool) -> JsonObject:
    answer = found.answer
    shown: JsonObject = {
        "hash": to_hex(answer.hash),
        "height": str(answer.height),
        "index": answer.index,
        "tx_result": tx_result_to_json(found.result),
        "tx": to_base64(answer.tx),
    }
    if prove and answer.proof is not None:
        shown["proof"] = {
            "root_hash": to_hex(found.header.data_hash),
            "data": to_base64(answer.tx),
            "proof": merkle_proof_to_json(answer.proof),
        }
    return shown


METHODS: Methods = {
    "tx": Method({"hash": Kind.OCTETS, "prove": Kind.FLAG}, tx),
    "tx_search": Method(
        {
            "query": Kind.TEXT,
            "prove": Kind.FLAG,
            "page": Kind.INTEGER,
            "per_page": Kind.INTEGER,
            "order_by": Kind.TEXT,
        },
        tx_search,
    ),
}
