"""What the light node knows, and asking it to know more."""

from __future__ import annotations

import contextlib
from typing import Any

from dllm_chat.cli.output import Report, fields, progress
from dllm_chat.cli.service import settings
from dllm_chat.network.open_light import OpenLight, open_light
from dllm_chat.session.networks import joined_network
from dllm_protocol.errors import DllmError, NotFound
from dllm_protocol.receipt import BADGE_LOCAL
from light_node.bundle_trust import trust_options_of
from light_node.freshness import Freshness, PeerRole

SECONDS_PER_MINUTE = 60
SECONDS_PER_HOUR = 3600
SECONDS_PER_DAY = 86_400


async def show_status(*, offline: bool) -> Report:
    """The light node's own view; what is wrong is part of it."""
    paths, config = settings()
    if offline and joined_network(paths) is None:
        raise NotFound("no network was joined: the embedded one has nothing to show offline")
    async with open_light(paths, config, progress) as light:
        if not offline:
            progress("verifying the chain")
            with contextlib.suppress(DllmError):  # the light client keeps the reason in its status
                await light.client.sync()
        return _status_report(light, light.client.status(), offline=offline)


def _status_report(light: OpenLight, fresh: Freshness, *, offline: bool) -> Report:
    root = trust_options_of(light.bundle)
    problem = "nobody was asked" if offline else fresh.problem
    data: dict[str, Any] = {
        "chain_id": light.bundle.chain_id,
        "state": str(fresh.state),
        "height": fresh.height,
        "hash": fresh.hash.hex().upper(),
        "lag_blocks": fresh.lag_blocks,
        "age_s": fresh.root_age_s,
        "trust_expires_in_s": fresh.expires_in_s,
        "root_height": root.height,
        "root_hash": root.hash.hex().upper(),
        "peers": [
            {"name": one.name, "role": str(one.role), "height": one.height, "problem": one.problem}
            for one in fresh.peers
        ],
        "problem": problem,
        "warning": fresh.warning,
        "last_refusal": fresh.last_refusal,
        "events": [
            {"kind": str(one.kind), "name": one.name, "message": one.message, "at": str(one.at)}
            for one in light.client.events
        ],
    }
    own = " (this machine, play money)" if light.bundle.badge == BADGE_LOCAL else ""
    shown: dict[str, object] = {
        "network": f"{light.bundle.chain_id}{own}",
        "state": f"{fresh.state}, {fresh.lag_blocks} blocks behind" if fresh.height else str(fresh.state),
        "verified": f"height {fresh.height}" if fresh.height else "nothing yet",
    }
    if fresh.height:
        shown["header"] = data["hash"]
        shown["age"] = f"{span(fresh.root_age_s)}; trust lasts {span(fresh.expires_in_s)} more"
        if fresh.expires_in_s <= 0:
            shown["age"] = f"{span(fresh.root_age_s)}: too old, since {span(-fresh.expires_in_s)}"
            shown["to do"] = "dllm light trust refresh"
    shown["root"] = f"height {root.height}, {data['root_hash'][:16]}…"
    for role in PeerRole:
        named = [one for one in fresh.peers if one.role is role]
        if named:
            shown[str(role)] = "\n".join(_peer(one.name, one.height, one.problem) for one in named)
    for name, value in (("warning", fresh.warning), ("problem", problem), ("refused", fresh.last_refusal)):
        if value and value != shown.get("problem"):
            shown[name] = value
    return Report(data, fields(shown))


def _peer(name: str, height: int, problem: str) -> str:
    seen = f", height {height}" if height else ""
    # The reason may name the peer once more, and once more again: its name stands in front already.
    problem = problem.removeprefix(f"{name}: ").removeprefix(f"cannot talk to {name}: ")
    return f"{name}{seen}{': ' + problem if problem else ''}"


async def run_sync(height: int) -> Report:
    """From what is trusted to the newest header, or to one that was named."""
    paths, config = settings()
    async with open_light(paths, config, progress) as light:
        before = light.client.status().height
        progress(f"verifying {f'height {height}' if height else 'the newest header'}")
        header = await light.client.verified_header(height) if height else await light.client.sync()
        fresh = light.client.status()
    data = {
        "chain_id": light.bundle.chain_id,
        "from_height": before,
        "height": header.height,
        "hash": header.hash().hex().upper(),
        "time": str(header.time),
        "app_hash": header.app_hash.hex().upper(),
        "tip_height": fresh.height,
        "warning": fresh.warning,
    }
    shown: dict[str, object] = {
        "verified": f"height {header.height}" + (f", from {before}" if before < header.height else ""),
        "header": data["hash"],
        "time": data["time"],
        "state root": f"{data['app_hash']}\nafter block {header.height - 1}",
    }
    if fresh.warning:
        shown["warning"] = fresh.warning
    return Report(data, fields(shown))


def span(seconds: int) -> str:
    """A length of time as people say it."""
    for size, name in (
        (SECONDS_PER_DAY, "days"),
        (SECONDS_PER_HOUR, "hours"),
        (SECONDS_PER_MINUTE, "minutes"),
    ):
        if seconds >= 2 * size:
            return f"{seconds // size} {name}"
    return f"{seconds} s"
