"""What the devnet commands do."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_chat.cli.command import Mode
from dllm_chat.cli.output import Report, fields, layers_text, note, progress, table, write_text
from dllm_chat.devnet.door import calling, is_running, start_detached, stop_running
from dllm_chat.devnet.errors import DevnetRefused, NoDevnet
from dllm_chat.devnet.homes import OwnHome
from dllm_chat.devnet.logs import follow, log_files
from dllm_chat.devnet.plan import (
    COMETBFT,
    SOLO,
    Folder,
    Plan,
    check_folder,
    make_plan,
    read_plan,
    remove_parts,
)
from dllm_chat.devnet.status import devnet_status
from dllm_chat.devnet.supervisor import Order, hold_and_run
from dllm_chat.paths import LockBusy, find_paths, make_private_folder
from dllm_protocol.bundle import SignedBundle
from dllm_protocol.errors import MalformedBytes, NotFound

DEFAULT_WORKERS = 2
DEFAULT_VALIDATORS = {SOLO: 1, COMETBFT: 4}
NODES_TO_SPARE_ONE = 4
"""Of fewer equal validators, those that are left have not more than two thirds of the power."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was typed after ``dllm devnet up``; None was not typed."""

    engine: str | None
    validators: int | None
    workers: int | None
    model: Path | None
    home: Path | None
    split: int | None = None
    relay: bool = False


def bring_up(wanted: Wanted, *, foreground: bool) -> Report:
    """Found the devnet where there is none, start it, and say how to use it.

    Raises:
        DevnetRefused: it runs already, or is another one than what was asked.
        DevnetFailed: it could not be started, and why.
    """
    if foreground and Mode.as_json:
        raise DevnetRefused("--foreground speaks to people", hint="leave it away with --json")
    folder = _folder(wanted.home)
    if is_running(folder):
        raise DevnetRefused(f"the devnet in {folder.root} runs already", hint="dllm devnet status shows it")
    caller = _callers_home(wanted.home)
    order = _order(folder, wanted, caller)
    if foreground:
        return _stay(folder, order, wanted.home, caller)
    try:
        ready = asyncio.run(start_detached(folder, order, progress))
    except BaseException:
        _tidy(folder, caller)
        raise
    return _report(ready, wanted.home, adopted=_adopt(folder, caller))


async def show_status(home: Path | None) -> Report:
    """What the nodes, the workers and the faucet say of themselves."""
    folder = _folder(home)
    plan = await asyncio.to_thread(read_plan, folder)
    pids: dict[str, int] = {}
    if is_running(folder):
        async with calling(folder) as caller:
            pids = (await caller.request("pids"))["pids"]
    data = await devnet_status(folder, plan, pids)
    signed = _bundle(folder)
    data["chain_id"] = signed.bundle.chain_id if signed else ""
    return Report(data, _status_text(data))


async def show_logs(home: Path | None, part: str, lines: int, *, follow_on: bool) -> Report:
    """The end of the parts' logs, and what comes."""
    if follow_on and Mode.as_json:
        raise DevnetRefused("--follow has no end", hint="leave it away with --json")
    folder = _folder(home)
    files = await asyncio.to_thread(lambda: log_files(folder, read_plan(folder), part))
    told = [
        {"part": file.part, "file": str(file.path), "lines": found}
        for file in files
        if (found := await asyncio.to_thread(file.tail, lines))
    ]
    if not Mode.as_json:
        for one in told:
            note(f"== {one['part']}: {one['file']}")
            write_text("".join(f"{line}\n" for line in one["lines"]))
    if follow_on:
        async for name, line in follow(files):
            write_text(f"{line}\n" if part else f"{name}: {line}\n")
    return Report({"logs": told})


async def order_part(home: Path | None, order: str, part: str, done: str) -> Report:
    """Kill or restart one part."""
    folder = _folder(home)
    name = f"node-{part}" if part.isdigit() else part
    async with calling(folder) as caller:
        await caller.request(order, name)
        pids = (await caller.request("pids"))["pids"]
    option = f" --home {shlex.quote(str(home))}" if home else ""
    again = f"; dllm devnet restart {part}{option} starts it again" if not pids.get(name, 0) else ""
    return Report(
        {"part": name, "running": pids.get(name, 0) > 0, "pid": pids.get(name, 0)}, f"{name} {done}{again}"
    )


async def bring_down(home: Path | None, *, wipe: bool) -> Report:
    """End everything; with ``wipe`` remove it, too."""
    folder = _folder(home)
    if not folder.root.is_dir():
        raise NoDevnet(f"there is no devnet in {folder.root}")
    ran = await stop_running(folder)
    await asyncio.to_thread(_after_end, folder, home, wipe=wipe)
    said = "the devnet has ended" if ran else "no devnet ran"
    return Report(
        {"home": str(folder.root), "was_running": ran, "wiped": wipe},
        f"{said}; its chain and keys are removed" if wipe else f"{said}; dllm devnet up goes on with it",
    )


# -- up -------------------------------------------------------------------------------------------------------


def _order(folder: Folder, wanted: Wanted, caller: OwnHome | None) -> Order:
    """What the supervisor is told: to found what was asked, or to go on with what is there."""
    try:
        plan = read_plan(folder)
    except NotFound:
        check_folder(folder)
        plan = _new_plan(wanted)
        make_private_folder(folder.root)
        return Order(plan, _funded(caller))
    _refuse_another(folder, plan, wanted)
    return Order()


def _new_plan(wanted: Wanted) -> Plan:
    engine = wanted.engine or SOLO
    model = wanted.model.absolute() if wanted.model else None
    if model is not None and not model.is_file():
        raise NotFound(f"there is no model file {model}", hint="dllm model found lists what this machine has")
    validators = DEFAULT_VALIDATORS.get(engine, 1) if wanted.validators is None else wanted.validators
    workers = DEFAULT_WORKERS if wanted.workers is None else wanted.workers
    return make_plan(engine, validators, workers, str(model or ""), wanted.split or 0, relay=wanted.relay)


def _refuse_another(folder: Folder, plan: Plan, wanted: Wanted) -> None:
    """The devnet that is there must be the one that was asked for."""
    asked: Mapping[str, tuple[object, object]] = {
        "--engine": (wanted.engine, plan.engine),
        "--validators": (wanted.validators, len(plan.nodes)),
        "--workers": (wanted.workers, len(plan.workers)),
        "--split": (wanted.split, plan.split),
        "--relay": ("yes" if wanted.relay else None, "yes" if plan.relay_port else "none"),
        "--model": (str(wanted.model.absolute()) if wanted.model else None, plan.model),
    }
    for flag, (want, has) in asked.items():
        if want is not None and want != has:
            nothing = "the model whole" if flag == "--split" else "the model of the package"
            raise DevnetRefused(
                f"{flag} is {want}, the devnet in {folder.root} has {has or nothing}",
                hint="dllm devnet down --wipe removes that one; --home NAME makes another beside it",
            )


def _funded(caller: OwnHome | None) -> tuple[bytes, ...]:
    """The address of a wallet for the home that this command was called from."""
    if caller is None or not caller.is_free:
        return ()
    with caller.make_wallet() as wallet:
        return (wallet.account_key().address,)


def _stay(folder: Folder, order: Order, home: Path | None, caller: OwnHome | None) -> Report:
    """Be the supervisor, until Ctrl-C."""

    def on_ready(ready: dict[str, Any]) -> None:
        write_text(_report(ready, home, adopted=_adopt(folder, caller)).text + "\n")
        note("Ctrl-C ends it.")

    try:
        hold_and_run(folder.root, order, progress, on_ready)
    except LockBusy as error:
        raise DevnetRefused(f"the devnet in {folder.root} runs already") from error
    finally:
        _tidy(folder, caller)
    return Report({}, "the devnet has ended")


def _report(ready: dict[str, Any], home: Path | None, *, adopted: bool) -> Report:
    """How to use what runs now."""
    option = f" --home {shlex.quote(str(home))}" if home else ""
    ask = 'dllm ask "What is DLLM?"'
    here = ask if adopted else f"DLLM_HOME={shlex.quote(ready['home'])} {ask}"
    join = (
        f"dllm network join {shlex.quote(ready['bundle'])} --fingerprint {shlex.quote(ready['fingerprint'])}"
    )
    then = {
        "ask at once": [here],
        "join from another home": [
            "export DLLM_HOME=$(mktemp -d)",
            join,
            "dllm wallet create main",
            "dllm faucet request",
            f"{ask} --yes",
        ],
        "look, break, end": [f"dllm devnet {word}{option}" for word in _words_to_try(ready)],
    }
    shown = {
        "chain": ready["chain_id"],
        "runs": f"{ready['size']} ({ready['engine']})",
        "bundle": ready["bundle"],
        "signed by": ready["fingerprint"],
        "faucet": ready["faucet"],
    }
    steps = "".join(
        f"\n\n{title}:" + "".join(f"\n  {line}" for line in lines) for title, lines in then.items()
    )
    commands = [line for lines in then.values() for line in lines]
    data = {name: value for name, value in ready.items() if name != "size"}
    return Report(data | {"in_use_here": adopted, "next": commands}, fields(shown) + steps)


def _words_to_try(ready: dict[str, Any]) -> list[str]:
    """A look, a part whose end the network survives, and the end."""
    survived = "1" if len(ready["nodes"]) >= NODES_TO_SPARE_ONE else "worker-1" if ready["workers"] else ""
    return ["status", *([f"kill {survived}"] if survived else []), "down"]


# -- the home from which it is called -------------------------------------------------------------------------


def _folder(home: Path | None) -> Folder:
    root = home if home is not None else find_paths().devnet
    return Folder(Path(os.path.abspath(root.expanduser())))  # noqa: PTH100 - resolve() would follow links


def _callers_home(home: Path | None) -> OwnHome | None:
    """The home in use, which asks on its own devnet; a devnet in a folder of its own leaves it alone."""
    return OwnHome(find_paths()) if home is None else None


def _adopt(folder: Folder, caller: OwnHome | None) -> bool:
    signed = _bundle(folder)
    return caller is not None and signed is not None and caller.adopt(signed)


def _tidy(folder: Folder, caller: OwnHome | None) -> None:
    """The devnet is not running: the caller's home does not use it."""
    signed = _bundle(folder)
    if caller is not None and signed is not None:
        caller.leave(signed.bundle.chain_id)


def _after_end(folder: Folder, home: Path | None, *, wipe: bool) -> None:
    signed = _bundle(folder)
    caller = _callers_home(home)
    if signed is not None and caller is not None:
        (caller.forget if wipe else caller.leave)(signed.bundle.chain_id)
    if wipe:
        if signed is not None:
            OwnHome(find_paths(folder.root)).forget(signed.bundle.chain_id)
        remove_parts(folder)


def _bundle(folder: Folder) -> SignedBundle | None:
    """The devnet's bundle; None where it never ran."""
    try:
        return SignedBundle.decode(folder.bundle.read_bytes())
    except (OSError, MalformedBytes):
        return None


def _status_text(data: Mapping[str, Any]) -> str:
    nodes = [
        (
            one["name"],
            one["url"],
            str(one["pid"] or "-"),
            "down" if not one["running"] else ("silent" if not one["height"] else str(one["height"])),
            one["app_hash"][:16],
            str(one["peers"]),
            "yes" if one["validator"] else "no",
        )
        for one in data["nodes"]
    ]
    workers = [
        (
            one["name"],
            str(one["pid"] or "-"),
            one["state"],
            one["model"],
            ", ".join(layers_text(slice_["layers"]) for slice_ in one["slices"]) or "-",
        )
        for one in data["workers"]
    ]
    head = {
        "chain": data["chain_id"],
        "runs": f"{data['engine']}, {data['home']}" if data["running"] else "no: dllm devnet up starts it",
        "height": data["height"],
        "app hash": data["app_hash"] or "-",
        "faucet": f"{data['faucet']['url']} ({'runs' if data['faucet']['running'] else 'down'})",
        "bundle": data["bundle"],
    }
    if data["relay"]:
        head["relay"] = f"{data['relay']['url']} ({'runs' if data['relay']['running'] else 'down'})"
    parts = [
        fields(head),
        table(("NODE", "RPC", "PROCESS", "HEIGHT", "APP HASH", "PEERS", "VOTES"), nodes),
        table(("WORKER", "PROCESS", "STATE", "MODEL", "LAYERS"), workers),
    ]
    return "\n\n".join(parts)
