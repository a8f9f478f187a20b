"""`dllm receipt list|show|verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from dllm_chat.cli.command import command, group
from dllm_chat.cli.output import Report, table

app = group(
    """Bills that anybody can check offline.

    \b
      dllm receipt list
      dllm receipt show last
      dllm receipt verify last
      dllm receipt verify FILE --json
    """
)
File = Annotated[str, typer.Argument(help="A file, the name of one that is listed, or: last.")]


@command(app, "list")
def list_receipts(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 20,
) -> Report:
    """Your receipts, newest first."""
    from dllm_chat.cli.receipts import listed

    found = listed(limit)
    rows = [
        (
            entry["name"],
            entry["asked"],
            entry["model"],
            f"{entry['completion_tokens']} tokens",
            entry["cost"],
            entry["problem"],
        )
        for entry in found
    ]
    heads = ("RECEIPT", "ASKED", "MODEL", "ANSWER", "DLLM", "")
    return Report({"receipts": found}, table(heads, rows) if rows else "no receipts yet: ask something")


@command(app, "show")
def show(file: File) -> Report:
    """What a receipt says, without checking it."""
    from dllm_chat.cli.receipts import described, described_text, find_receipt
    from dllm_chat.session.receipts import load_receipt

    path = find_receipt(file)
    data = described(path, load_receipt(path))
    return Report(data, described_text(data))


@command(app, "verify")
async def verify(
    file: File,
    online: Annotated[
        bool, typer.Option("--online", help="Ask the network where the stored headers do not reach.")
    ] = False,
) -> Report:
    """Check signatures, vouchers, acks and proofs of a receipt; needs no network.

    \b
    anchored                 its proofs lead to a header that this machine verified
    consistent, not anchored everything in it fits, but the header is unknown here (try --online)

    Exit code 8 when anything was changed.
    """
    from dllm_chat.cli.anchoring import anchor_online, anchored_offline
    from dllm_chat.cli.receipts import find_receipt, verdict
    from dllm_chat.paths import find_paths
    from dllm_chat.session.receipts import check_receipt, load_receipt

    path = find_receipt(file)
    checked = check_receipt(load_receipt(path))
    anchored = anchored_offline(find_paths(), checked.header)
    if not anchored and online:
        anchored = await anchor_online(checked.header)
    data, text = verdict(path, checked, anchored=anchored)
    return Report(data, text)
