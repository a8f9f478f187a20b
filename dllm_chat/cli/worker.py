"""`dllm worker on|off|status|leave`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dllm_chat.cli.command import command, group
from dllm_chat.cli.output import Report, fields, layers_text, table
from dllm_chat.cli.passwords import PasswordFd, PasswordFile
from dllm_chat.cli.wallet_money import AccountIndex, WalletName
from dllm_protocol.units import format_dllm

app = group(
    """Answer other people's questions on this machine, and earn.

    \b
      dllm worker on                   serves the model in the package
      dllm worker on --model FILE      registers and serves a GGUF file (dllm model found)
      dllm worker on --model FILE --backend openai --url http://127.0.0.1:8000/v1
      dllm worker on --package DIR --layers auto --name MODEL
                                       some layers of a big model; what is missing is fetched
      dllm worker on --relay wss://HOST
                                       on a joined network, without a port that others can reach
      dllm worker status
      dllm worker off                  finishes running answers, then stops
      dllm worker leave                takes the bond back; once more when it is free
    """
)


@command(app, "on")
async def on(
    model: Annotated[Path | None, typer.Option("-m", "--model", help="GGUF file to serve.")] = None,
    relay: Annotated[
        str,
        typer.Option(
            help="wss://HOST of a relay to be reached through; else the `relay` of config.toml.",
            metavar="URL",
        ),
    ] = "",
    backend: Annotated[
        str, typer.Option("--backend", help="llama.cpp, or openai: a server of yours, at --url.")
    ] = "llama.cpp",
    url: Annotated[str, typer.Option("--url", help="That server, as http://127.0.0.1:8000/v1.")] = "",
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="A file (0600) with its key.")
    ] = None,
    remote_model: Annotated[
        str, typer.Option("--remote-model", help="Its name for the model, if it has several.")
    ] = "",
    package: Annotated[
        Path | None,
        typer.Option("--package", help="Folder of a model in pieces; those that are missing are fetched."),
    ] = None,
    layers: Annotated[
        str, typer.Option("--layers", help="FIRST:END of it, END not included; auto: the network chooses.")
    ] = "",
    most_layers: Annotated[
        int | None, typer.Option("--most-layers", help="With --layers auto: no more.", min=1, max=512)
    ] = None,
    name: Annotated[
        str, typer.Option("--name", help="The registered model, for a folder that is empty.")
    ] = "",
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", help="host:port of somebody who seeds, beside the holders on chain."),
    ] = None,
    web_seed: Annotated[
        list[str] | None, typer.Option("--web-seed", help="Address of a package's folder behind HTTP.")
    ] = None,
    near_holders: Annotated[
        bool,
        typer.Option("--near-holders", help="Also ask holders on this machine and in private networks."),
    ] = False,
    seed: Annotated[str, typer.Option("--seed", help="host:port to serve the pieces at.")] = "",
    upload_limit: Annotated[
        str, typer.Option("--upload-limit", help="Bytes a second to peers: 2M, 500k; 0 = no limit.")
    ] = "0",
    stay: Annotated[bool, typer.Option("--stay", help="Wait here until Ctrl-C, then stop it.")] = False,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
) -> Report:
    """Start serving. On a joined network the worker goes on after this command, until: dllm worker off.

    The first time, this posts a bond from your account; it comes back with: dllm worker leave.
    """
    from dllm_chat.cli.workers import switch_on
    from dllm_chat.serving_from import ServingFrom
    from dllm_chat.serving_pieces import ServingPieces

    key_file = str(api_key_file.absolute()) if api_key_file else ""
    server = ServingFrom.chosen(backend, url, key_file, remote_model)
    sources = (tuple(peer or ()), tuple(web_seed or ()), near_holders)
    pieces = ServingPieces.chosen(package, layers, most_layers, name, *sources, seed, upload_limit)
    data = await switch_on(
        model, password_file, password_fd, server=server, pieces=pieces, relay=relay, stay=stay
    )
    text = f"worker {data['state']}: {data['provider'] or 'registering'} {data['model']}".rstrip()
    return Report(data, f"{text}\n{data['note']}".rstrip())


@command(app, "off")
async def off() -> Report:
    """Finish running answers, claim what was earned, stop."""
    from dllm_chat.cli.workers import switch_off

    data = await switch_off()
    return Report(data, "the worker stopped" if data["was_running"] else "no worker was running")


@command(app, "status")
def status() -> Report:
    """What the worker last said of itself; asks nobody."""
    from dllm_chat.cli.workers import status_data

    data = status_data()
    shown = {
        "state": data["state"],
        "model": data["model"] or "none",
        "provider": data["provider"] or "none",
        "sessions": data["sessions"],
        "speed": f"{data['tokens_per_s']:.1f} tokens/s",
        "earned": f"{format_dllm(data['earned_udllm'])} DLLM",
    }
    if data["backend_url"]:
        shown["backend"] = f"{data['backend']}, {data['backend_url']}"
    if data["endpoints"]:
        shown["endpoints"] = "\n".join(f"{one}: {state}" for one, state in data["endpoints"].items())
    if data["problem"]:
        shown["problem"] = data["problem"]
    text = fields(shown)
    if len(data["slices"]) > 1:
        rows = [
            (layers_text(one["layers"]), one["model"], one["provider"], str(one["sessions"]))
            for one in data["slices"]
        ]
        text += "\n\n" + table(("LAYERS", "MODEL", "PROVIDER", "SESSIONS"), rows)
    return Report(data, text)


@command(app, "leave")
async def leave(
    provider: Annotated[
        str, typer.Argument(help="The provider's address; not needed where you have one.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("-n", "--dry-run", help="Check and price it; send nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Agree beforehand.")] = False,
    wallet: WalletName = None,
    account: AccountIndex = None,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
) -> Report:
    """Take your provider's bond back: it is free after the chain's unbonding time. Stop the worker first.

    \b
      dllm worker off
      dllm worker leave                says when the bond is free
      dllm worker leave                after that time: has it paid out
    """
    from dllm_chat.cli.staking import Terms
    from dllm_chat.cli.worker_leave import leave as take_back

    terms = Terms(dry_run, yes, password_file, password_fd, {"wallet": wallet, "account": account})
    return await take_back(provider, terms)
