"""`dllm devnet up|status|logs|kill|restart|down`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dllm_chat.cli.command import command, group
from dllm_chat.cli.output import Report

app = group(
    """A whole test network on this machine, for trying things.

    \b
      dllm devnet up
      dllm devnet up --engine cometbft --validators 4 --workers 2
      dllm devnet up --workers 4 --model FILE.gguf --split 3
      dllm devnet up --relay
      dllm devnet status
      dllm devnet kill 2
      dllm devnet restart 2
      dllm devnet logs worker-1 -f
      dllm devnet down
    """
)
Home = Annotated[Path | None, typer.Option(help="The devnet's folder, if another than the usual one.")]
Part = Annotated[str, typer.Argument(help="A node's number, worker-N, faucet or relay.")]


@command(app, "up")
def up(
    engine: Annotated[str | None, typer.Option(help="solo (one validator) or cometbft.")] = None,
    validators: Annotated[
        int | None, typer.Option(help="Nodes, each a validator: 1 on solo, 4 on cometbft if not said.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Workers: 2 if not said.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="GGUF file that they serve; else the package's own.")
    ] = None,
    split: Annotated[
        int | None,
        typer.Option(
            help="Cut the model into so many slices; each is served by two workers. Whole if not said."
        ),
    ] = None,
    relay: Annotated[
        bool, typer.Option("--relay", help="A relay, through which alone the workers are reached.")
    ] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, and end it with Ctrl-C; else it runs until 'down'.")
    ] = False,
    home: Home = None,
) -> Report:
    """Start the network; return when its workers can be asked.

    Real nodes, workers and a faucet, each with a home and keys of its own. An existing devnet goes on where it was.
    """
    from dllm_chat.cli.devnets import Wanted, bring_up

    return bring_up(Wanted(engine, validators, workers, model, home, split, relay), foreground=foreground)


@command(app, "status")
async def status(home: Home = None) -> Report:
    """Height, application hash and peers of every node; workers, faucet, relay."""
    from dllm_chat.cli.devnets import show_status

    return await show_status(home)


@command(app, "logs")
async def logs(
    part: Annotated[
        str, typer.Argument(help="A node's number, worker-N, faucet, relay or supervisor; all if not said.")
    ] = "",
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, max=10_000, help="How many of each.")] = 20,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes.")] = False,
    home: Home = None,
) -> Report:
    """What the parts wrote."""
    from dllm_chat.cli.devnets import show_logs

    return await show_logs(home, part, lines, follow_on=follow)


@command(app, "kill")
async def kill(part: Part, home: Home = None) -> Report:
    """End a part without warning, as a power cut does (SIGKILL). It stays down until 'restart'."""
    from dllm_chat.cli.devnets import order_part

    return await order_part(home, "kill", part, "killed")


@command(app, "restart")
async def restart(part: Part, home: Home = None) -> Report:
    """Start a part that was killed, or end it in order and start it again."""
    from dllm_chat.cli.devnets import order_part

    return await order_part(home, "restart", part, "runs again")


@command(app, "down")
async def down(
    wipe: Annotated[bool, typer.Option("--wipe", help="Remove its chain, keys and wallets, too.")] = False,
    home: Home = None,
) -> Report:
    """End everything in order; nothing of it runs afterwards."""
    from dllm_chat.cli.devnets import bring_down

    return await bring_down(home, wipe=wipe)
