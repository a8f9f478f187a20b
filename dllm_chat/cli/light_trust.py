"""`dllm light trust` and `dllm light trust refresh`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dllm_chat.cli.confirming import confirm
from dllm_chat.cli.lights import span
from dllm_chat.cli.output import Report, fields, note, progress
from dllm_chat.cli.service import settings
from dllm_chat.network.addresses import websocket_url
from dllm_chat.network.lighting import nodes_of
from dllm_chat.network.open_light import OpenLight, open_light
from dllm_chat.network.refreshing import Refreshed, refresh
from dllm_chat.session.networks import joined_network, light_store_file
from dllm_protocol.bundle import fingerprint
from dllm_protocol.errors import Declined, NotFound, UsageRefused, VerificationFailed
from dllm_protocol.header import Header
from light_node.clock import SystemClock
from light_node.trust_store import TrustStore

NS_PER_S = 1_000_000_000
HASH_DIGITS = 64


def show_trust() -> Report:
    """The trust root and what grew on it, without asking anybody."""
    data = _trust_data()
    shown: dict[str, object] = {
        "network": data["chain_id"],
        "root": f"height {data['root_height']}\n{data['root_hash']}",
        "from": f"a bundle signed by {data['fingerprint']}",
        "lasts": f"{span(data['trusting_period_s'])} from the newest verified header",
    }
    if data["kept_headers"]:
        shown["verified"] = f"height {data['highest_height']}\n{data['highest_hash']}"
        shown["of"] = f"{data['highest_time']}, {span(max(0, data['age_s']))} ago"
        left = data["trust_expires_in_s"]
        shown["expires"] = f"in {span(left)}" if left > 0 else f"{span(-left)} ago: dllm light trust refresh"
        shown["kept"] = f"{data['kept_headers']} headers, from height {data['lowest_height']}"
    else:
        shown["verified"] = "nothing yet: dllm light sync"
    return Report(data, fields(shown))


async def refresh_trust(sources: list[str], height: int, typed_hash: str, *, unlinked: bool) -> Report:
    """A new root in the place of an expired one."""
    expected = _hash(typed_hash)
    if unlinked and not (height and expected):
        raise UsageRefused(
            "without the link, the new root rests on your own comparison alone",
            hint="give --height and --hash as you know them from a place that you trust",
        )
    paths, config = settings()
    if joined_network(paths) is None:
        raise NotFound("no network was joined: the embedded one renews its trust by itself")
    async with open_light(paths, config, progress) as light:
        known = light.client.status()
        if known.hash and known.expires_in_s > 0 and not unlinked:
            header = await light.client.sync()
            data = {"refreshed": False, "height": header.height, "hash": header.hash().hex().upper()}
            return Report(data, f"trust had not expired: verified up to height {header.height}")
        asked = [websocket_url(one) for one in sources] + list(_nodes(light))
        done = await refresh(
            light,
            asked[:2] if sources[1:] else asked,
            _agreement(expected),
            height=height,
            give_up_link=unlinked,
        )
    return _report(done)


def _nodes(light: OpenLight) -> tuple[str, ...]:
    """The person's own witnesses first: they are not the publisher's choice."""
    return (*light.own_witnesses, *nodes_of(light.bundle, light.own_witnesses))


def _agreement(expected: bytes) -> Callable[[Header, str, str], None]:
    def agree(header: Header, one: str, other: str) -> None:
        digits = header.hash().hex().upper()
        if expected:
            if header.hash() != expected:
                raise VerificationFailed(
                    f"header {header.height} is {digits}, expected was {expected.hex().upper()}",
                    hint="the nodes show another chain than the place where you got the hash",
                )
            return
        note("What this home trusts is too old to check anything by itself. Two nodes show:")
        note(f"\n  height  {header.height}\n  time    {header.time}")
        note(f"  hash    {digits[:32]}\n          {digits[32:]}")
        note(f"\n  {one}\n  {other}\n")
        note("Compare the hash with a third place that you trust: a friend's `dllm light")
        note(f"verify --height {header.height}`, the publisher's page, a block explorer. If they")
        note("differ, somebody shows you a made-up chain.")
        try:
            confirm("Is it the same hash there?", yes=False)
        except Declined as error:
            raise Declined(
                error.message, hint="give --height and --hash as you know them from elsewhere"
            ) from error

    return agree


def _report(done: Refreshed) -> Report:
    header, old = done.header, done.old
    data = {
        "refreshed": True,
        "height": header.height,
        "hash": header.hash().hex().upper(),
        "time": str(header.time),
        "linked": done.is_linked,
        "old_height": old.height if old else 0,
        "old_hash": old.hash().hex().upper() if old else "",
    }
    shown: dict[str, object] = {
        "trusted": f"height {header.height}\n{data['hash']}",
        "time": data["time"],
        "linked": f"yes, hashes lead back to height {data['old_height']}" if done.is_linked and old else "no",
    }
    if not done.is_linked and old:
        shown["forgotten"] = f"height {old.height}\n{data['old_hash']}"
    return Report(data, fields(shown))


def _hash(typed: str) -> bytes:
    digits = "".join(typed.split())
    if not digits:
        return b""
    try:
        found = bytes.fromhex(digits)
    except ValueError:
        found = b""
    if len(digits) != HASH_DIGITS or not found:
        raise UsageRefused(f"a header's hash has {HASH_DIGITS} hex digits, not {typed[:80]!r}")
    return found


def _trust_data() -> dict[str, Any]:
    """What this home trusts of the joined network, read from its files alone.

    Raises:
        NotFound: no network was joined.
    """
    paths, _ = settings()
    joined = joined_network(paths)
    if joined is None:
        raise NotFound(
            "no network was joined: the embedded one trusts this machine's own node",
            hint="dllm network join BUNDLE",
        )
    bundle = joined.bundle
    data: dict[str, Any] = {
        "chain_id": bundle.chain_id,
        "root_height": bundle.trust_height,
        "root_hash": bundle.trust_hash.hex().upper(),
        "signer": joined.signer.hex(),
        "fingerprint": fingerprint(joined.signer),
        "trusting_period_s": bundle.genesis.params.trusting_period_ms // 1000,
        "kept_headers": 0,
    }
    file = light_store_file(paths, bundle.chain_id)
    if not file.exists():
        return data
    with TrustStore(file, bundle.chain_id) as store:
        latest, earliest = store.latest(), store.earliest()
        if latest is None or earliest is None:
            return data
        age_s = (SystemClock().now().to_ns() - latest.header.time.to_ns()) // NS_PER_S
        return data | {
            "kept_headers": store.count(),
            "lowest_height": earliest.height,
            "highest_height": latest.height,
            "highest_hash": latest.hash().hex().upper(),
            "highest_time": str(latest.header.time),
            "age_s": age_s,
            "trust_expires_in_s": data["trusting_period_s"] - age_s,
        }
