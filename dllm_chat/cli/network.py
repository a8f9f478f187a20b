"""`dllm network status|join|leave`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dllm_chat.cli.command import command, group
from dllm_chat.cli.confirming import confirm
from dllm_chat.cli.output import Report, fields, note
from dllm_chat.cli.service import settings, watching
from dllm_protocol.errors import Declined, NotFound, VerificationFailed

app = group(
    """The network in use: the embedded one, until another is joined.

    \b
      dllm network status
      dllm network join NETWORK.bundle
      dllm network leave
    """
)
MAX_BUNDLE_BYTES = 4 << 20


@command(app, "status")
async def status() -> Report:
    """Chain, verified height, how fresh that is, who was asked and who validates."""
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
        "time": f"{data['time']}, {data['age_s']} s ago; trust lasts {data['trust_expires_in_s']} s more",
        "source": data["source"],
        "witnesses": ", ".join(data["witnesses"]) or "none",
        "validators": "\n".join(f"{one['address']} power {one['power']}" for one in data["validators"]),
    }
    if data["problem"]:
        shown["problem"] = data["problem"]
    return Report(data, fields(shown))


@command(app, "join")
def join(
    file: Annotated[Path, typer.Argument(help="The network's bundle.")],
    fingerprint: Annotated[
        str, typer.Option(help="The publisher's fingerprint as you know it from elsewhere: 16 hex digits.")
    ] = "",
) -> Report:
    """Use another network from now on.

    The bundle's signer is shown as a fingerprint; compare it with one that reached you on another way.
    """
    from dllm_chat.session.networks import BundleRefused, join_network
    from dllm_protocol import bundle
    from dllm_protocol.errors import MalformedBytes

    raw = _read(file)
    try:
        signed = bundle.SignedBundle.decode(raw)
    except MalformedBytes as error:
        raise BundleRefused(f"{file} is not a network's bundle: {error.message}") from error
    shown = bundle.fingerprint(signed.signer) if signed.signer else ""
    if fingerprint:
        if _digits(fingerprint) != _digits(shown):
            raise VerificationFailed(
                f"the bundle's signer is {shown or 'nobody'}, expected was {fingerprint}"
            )
    else:
        note(f"network   {signed.bundle.chain_id}\nsigned by {shown or 'nobody'}")
        try:
            confirm("Is this the publisher's fingerprint?", yes=False)
        except Declined as error:
            raise Declined(error.message, hint="give --fingerprint") from error
    paths, _ = settings()
    joined = join_network(paths, raw, confirmed_signer=signed.signer)
    data = {
        "chain_id": joined.bundle.chain_id,
        "signer": joined.signer.hex(),
        "fingerprint": shown,
        "sources": list(joined.bundle.sources),
    }
    return Report(data, f"joined {joined.bundle.chain_id}; dllm network status asks it")


@command(app, "leave")
def leave() -> Report:
    """Use the embedded network again; what belongs to the joined one stays on disk."""
    from dllm_chat.session.networks import joined_network, leave_network

    paths, _ = settings()
    left = joined_network(paths)
    leave_network(paths)
    name = left.bundle.chain_id if left else ""
    return Report({"left": name}, f"left {name or 'nothing'}; the embedded network is in use")


def _digits(text: str) -> str:
    return "".join(text.split()).lower()


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise NotFound(f"cannot read {file}: {error.strerror}") from error
    if len(raw) > MAX_BUNDLE_BYTES:
        raise VerificationFailed(f"{file} has more than {MAX_BUNDLE_BYTES} bytes: it is no bundle")
    return raw
