"""`dllm network status|join|bundle|invite|leave`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dllm_chat.cli.command import command, group
from dllm_chat.cli.output import Report, fields
from dllm_chat.cli.service import settings, watching
from dllm_protocol.errors import UsageRefused

Relay = Annotated[
    str,
    typer.Option(
        help="wss://HOST of the relay where both sides meet; else the `relay` of config.toml.", metavar="URL"
    ),
]
PlainRelay = Annotated[
    bool, typer.Option("--plain-relay", help="Take a relay's ws:// address outside of private networks.")
]

app = group(
    """The network in use: the embedded one, until another is joined.

    \b
      dllm network status
      dllm network join NETWORK.bundle
      dllm network join https://HOST/NETWORK.bundle
      dllm network invite
      dllm network invite --relay wss://HOST
      dllm network leave
    """
)


@command(app, "status")
async def status() -> Report:
    """Chain, verified height, how fresh that is, who was asked and who validates."""
    from dllm_chat.cli.lights import span
    from dllm_chat.cli.networks import status_data

    async with watching() as service:
        await service.refresh()
        data = await status_data(service)
    play = " (this machine, play money)" if data["badge"] == "LOCAL" else ""
    shown: dict[str, object] = {
        "network": f"{data['badge']}{play}",
        "chain": data["chain_id"],
        "verified": f"height {data['height']}, {data['state']}, {data['lag_blocks']} behind the source",
        "header": data["hash"],
        "time": f"{data['time']}, {span(data['age_s'])} ago; trust lasts {span(data['trust_expires_in_s'])} more",
        "source": data["source"],
        "witnesses": "\n".join(data["witnesses"]) or "none",
        "validators": "\n".join(f"{one['address']} power {one['power']}" for one in data["validators"]),
    }
    if data["problem"]:
        shown["problem"] = data["problem"]
    return Report(data, fields(shown))


@command(app, "join")
async def join(
    target: Annotated[
        str,
        typer.Argument(metavar="BUNDLE|URL|CODE", help="A file, an https address, or an invitation's code."),
    ],
    fingerprint: Annotated[
        str, typer.Option(help="The publisher's fingerprint as you know it from elsewhere: 24 hex digits.")
    ] = "",
    witness: Annotated[
        list[str] | None,
        typer.Option(help="ws://HOST:PORT/websocket of a node that the publisher does not run; repeatable."),
    ] = None,
    relay: Relay = "",
    plain_relay: PlainRelay = False,
) -> Report:
    """Use another network from now on.

    The bundle's publisher must be known to the package, named by an invitation, or compared by fingerprint.
    One node from outside the bundle must show the same chain, except on a test network on this machine.
    What this home trusts already is never replaced by a root that does not lead back to it.
    """
    from dllm_chat.cli.network_joining import join_from

    _, config = settings(relay=relay or None)
    return await join_from(target, fingerprint, witness or [], relay=config.relay, plain_relay=plain_relay)


@command(app, "bundle")
async def bundle(
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("network.bundle"),
) -> Report:
    """Describe the joined network for others, in one signed file.

    Its trust root is verified now. It is signed by this home's publisher key; those who join compare its
    fingerprint, or name the file's hash: dllm network join https://HOST/network.bundle#HASH
    """
    from dllm_chat.cli.network_sharing import write_bundle

    return await write_bundle(out)


@command(app, "invite")
async def invite(
    minutes: Annotated[int, typer.Option(min=1, max=120, help="How long the bundle is served.")] = 15,
    address: Annotated[str, typer.Option(help="This machine's address in the local network.")] = "",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="In the local network; 0 lets the system choose.")
    ] = 0,
    relay: Relay = "",
    plain_relay: PlainRelay = False,
    lan: Annotated[bool, typer.Option("--lan", help="The local network, whatever config.toml says.")] = False,
) -> Report:
    """Invite people by a short code: in your local network, or anywhere through a relay.

    The bundle is served meanwhile. The code names it by its hash, so nobody between you can give another one.
    Through a relay it is sealed, too. With a `relay` in config.toml that is the way, unless --lan, --address or
    --port says otherwise.
    """
    from dllm_chat.cli.network_sharing import invite as serve
    from dllm_chat.cli.network_sharing import invite_by_relay
    from light_node.relay.urls import relay_url

    is_near = lan or bool(address) or port != 0
    if is_near and (relay or plain_relay):
        raise UsageRefused(
            "--lan, --address and --port are for the local network, --relay and --plain-relay for a relay",
            hint="give one or the other; each makes a code of its own",
        )
    _, config = settings(relay=relay or None)
    if plain_relay and not config.relay:
        raise UsageRefused("--plain-relay is given and no relay", hint="add --relay ws://HOST:PORT")
    if is_near or not config.relay:
        return await serve(minutes, address, port)
    url = relay_url(config.relay, plain_allowed=plain_relay)
    return await invite_by_relay(minutes, url, plain=plain_relay)


@command(app, "leave")
def leave() -> Report:
    """Use the embedded network again; what belongs to the joined one stays on disk."""
    from dllm_chat.session.networks import joined_network, leave_network

    paths, _ = settings()
    left = joined_network(paths)
    leave_network(paths)
    name = left.bundle.chain_id if left else ""
    return Report({"left": name}, f"left {name or 'nothing'}; the embedded network is in use")
