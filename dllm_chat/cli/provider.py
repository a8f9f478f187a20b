"""`dllm provider list|show`."""

from __future__ import annotations

from typing import Annotated

import typer

from dllm_chat.cli.command import command, group
from dllm_chat.cli.output import Report, fields, layers_text, table

app = group(
    """Who serves what, at which price, with which past; all proved.

    \b
      dllm provider list
      dllm provider list --model guide
      dllm provider show dllmprov1…
    """
)


@command(app, "list")
async def list_providers(
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="Only those who offer this model.")
    ] = None,
) -> Report:
    """Offers that a question could get now, cheapest first by kept tokens."""
    from dllm_chat.cli.providers import offers_of_models
    from dllm_chat.cli.service import watching

    async with watching() as service:
        height, found = await offers_of_models(service.chain, model)
    rows = [
        (
            one["provider"],
            one["model"],
            layers_text(one["layers"]),
            str(one["prices_udllm_per_1000"]["prompt"]),
            str(one["prices_udllm_per_1000"]["kept"]),
            f"{one['reputation_ppm'] / 10_000:.1f} %",
            f"{one['open_sessions']}/{one['capacity_sessions']}",
        )
        for one in found
    ]
    heads = ("PROVIDER", "MODEL", "LAYERS", "PROMPT", "ANSWER", "REPUTATION", "BUSY")
    shown = (
        table(heads, rows) + "\nprices in udllm for 1,000 tokens" if rows else "nobody offers anything now"
    )
    return Report({"offers": found, "height": height}, shown)


@command(app, "show")
async def show(provider: Annotated[str, typer.Argument(help="A provider's address.")]) -> Report:
    """One provider: owner, bond, endpoints, offers and what is known of its past."""
    from dllm_chat.cli.providers import provider_data
    from dllm_chat.cli.service import watching

    async with watching() as service:
        data = await provider_data(service.chain, provider)
    shown = {name: value for name, value in data.items() if name not in ("offers", "endpoints")}
    shown["endpoints"] = "\n".join(data["endpoints"])
    shown["offers"] = "\n".join(
        f"{one['model']} {layers_text(one['layers'])}, {one['reputation_ppm'] / 10_000:.1f} %, "
        f"{one['open_sessions']} of {one['capacity_sessions']} sessions"
        for one in data["offers"]
    )
    return Report(data, fields(shown))
