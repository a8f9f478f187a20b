"""`dllm light verify`: one claim, and the chain of proofs from the trust root to it."""

from __future__ import annotations

from typing import Any

from dllm_chat.cli.output import Report, fields, progress
from dllm_chat.cli.service import settings
from dllm_chat.network.lighting import MakeSource
from dllm_chat.network.open_light import OpenLight, open_light
from dllm_protocol.bundle import fingerprint
from dllm_protocol.errors import NotFound, UsageRefused, VerificationFailed
from dllm_protocol.header import Header
from light_node.proxy.proving import Proving
from light_node.proxy.upstream import UpstreamSource
from light_node.queries import ProvedReads

HASH_BYTES = 32
VALUE_SHOWN_BYTES = 64
_MAKE: MakeSource = UpstreamSource


async def verify_one(*, height: int, header_hash: str, tx: str, key: str) -> Report:
    """Verify what was named; exactly one of a header, a transaction and a key."""
    named = [bool(header_hash) or bool(height and not key), bool(tx), bool(key)]
    if sum(named) != 1:
        raise UsageRefused(
            "name one thing to verify",
            hint="--height N [--hash HASH], --tx HASH, or --key KEY [--height N]",
        )
    paths, config = settings()
    async with open_light(paths, config, progress, make_source=_MAKE) as light:
        progress("verifying the chain")
        await light.client.sync()
        proving = Proving(light.client)
        if tx:
            return await _transaction(light, proving, hash_from(tx, "transaction"))
        if key:
            return await _key(light, _key_bytes(key), height or None)
        return await _header(light, proving, height, hash_from(header_hash, "header") if header_hash else b"")


async def _header(light: OpenLight, proving: Proving, height: int, expected: bytes) -> Report:
    if not height:
        found = await proving.height_of(expected)
        if found is None:
            raise NotFound(f"the node knows no block {expected.hex().upper()}", hint="give its --height too")
        height = found
    header = await proving.header(height)
    if expected and header.hash() != expected:
        raise VerificationFailed(
            f"height {height} has header {header.hash().hex().upper()}, claimed was {expected.hex().upper()}"
        )
    signed = await proving.signed_header(height)
    signers = sum(1 for one in signed.commit.signatures if one.signature)
    proof = [
        *_root(light),
        f"header {height}: {_hex(header.hash())}, signed by {signers} of {len(signed.commit.signatures)}",
    ]
    return _report(proof, header, {"kind": "header", "signatures": signers})


async def _transaction(light: OpenLight, proving: Proving, tx_hash: bytes) -> Report:
    found = await proving.transaction(tx_hash)
    if found is None:
        raise NotFound(
            f"the node knows no transaction {tx_hash.hex().upper()}, which proves nothing",
            hint="dllm wallet history tells by its sequence whether it can still come",
        )
    answer, header = found.answer, found.header
    following = await proving.following(answer.height)
    siblings = len(answer.proof.aunts) if answer.proof else 0
    total = answer.proof.total if answer.proof else 1
    proof = [
        *_root(light),
        f"header {header.height}: {_hex(header.hash())}",
        f"  transaction {answer.index + 1} of {total}, {siblings} hashes to data_hash {_hex(header.data_hash)}",
        f"header {following.height}: {_hex(following.hash())}",
        f"  result code {found.result.code} under last_results_hash {_hex(following.last_results_hash)}",
    ]
    more = {
        "kind": "transaction",
        "tx_hash": tx_hash.hex().upper(),
        "index": answer.index,
        "code": found.result.code,
        "gas_used": found.result.gas_used,
    }
    return _report(proof, header, more)


async def _key(light: OpenLight, key: bytes, height: int | None) -> Report:
    found = await ProvedReads(light.client).read(key, height)
    header = found.header
    said = (
        "absent"
        if found.value is None
        else f"{len(found.value)} bytes, {_hex(found.value[:VALUE_SHOWN_BYTES])}"
    )
    proof = [
        *_root(light),
        f"header {header.height}: {_hex(header.hash())}",
        f"  state root after block {found.height}: {_hex(header.app_hash)}",
        f"    {key.decode(errors='backslashreplace')}: {said} ({len(found.proof)} bytes of proof)",
    ]
    more = {
        "kind": "key",
        "key": key.hex(),
        "state_height": found.height,
        "present": found.value is not None,
        "value": None if found.value is None else found.value.hex(),
        "proof": found.proof.hex(),
    }
    return _report(proof, header, more)


def _root(light: OpenLight) -> list[str]:
    bundle = light.bundle
    whose = (
        f"a bundle signed by {fingerprint(light.signer)}" if light.signer else "this machine's own network"
    )
    lines = [f"trust root: height {bundle.trust_height}, {_hex(bundle.trust_hash)}, from {whose}"]
    witnesses = [one.name for one in light.client.witnesses]
    lines += [f"asked: {light.client.primary.name}", f"compared with: {', '.join(witnesses) or 'nobody'}"]
    tip = light.client.status()
    return [*lines, f"newest verified header: height {tip.height}, {_hex(tip.hash)}"]


def _report(proof: list[str], header: Header, more: dict[str, Any]) -> Report:
    data = {
        "height": header.height,
        "hash": header.hash().hex().upper(),
        "time": str(header.time),
        "app_hash": header.app_hash.hex().upper(),
        "chain_id": header.chain_id,
        "proof_chain": proof,
        **more,
    }
    return Report(data, "\n".join(proof) + "\n" + fields({"verified": more["kind"], "time": data["time"]}))


def hash_from(text: str, what: str) -> bytes:
    """32 bytes from hex. Raises UsageRefused."""
    try:
        found = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        found = b""
    if len(found) != HASH_BYTES:
        raise UsageRefused(f"a {what}'s hash has {2 * HASH_BYTES} hex digits, not {text[:80]!r}")
    return found


def _key_bytes(text: str) -> bytes:
    if not text.startswith("0x"):
        return text.encode()
    try:
        return bytes.fromhex(text[2:])
    except ValueError as error:
        raise UsageRefused(f"{text[:80]!r} is not hex") from error


def _hex(value: bytes) -> str:
    return f"{value[:8].hex().upper()}…" if len(value) > 8 else value.hex().upper()
