"""`dllm model list|show|found`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dllm_chat.cli.command import command, group
from dllm_chat.cli.output import Report, fields, table

app = group(
    """Models: registered on the network, and found on this machine.

    \b
      dllm model list
      dllm model show guide
      dllm model found
    """
)


@command(app, "list")
async def list_models() -> Report:
    """Registered models, proved; the one asked by default is marked."""
    from dllm_chat.cli.models import model_data
    from dllm_chat.cli.service import watching
    from dllm_chat.dispatch.market import NoProvider

    async with watching() as service:
        height = await service.chain.reads.provable_height()
        found = [await model_data(service.chain, name, height) for name in await service.models()]
        try:
            default = await service.default_model()
        except NoProvider:
            default = ""
    rows = [
        (
            ("* " if one["name"] == default else "  ") + one["name"],
            one["status"],
            one["architecture"],
            str(one["layers"]),
            str(one["context_rows"]),
            f"{one['size_bytes'] / 1e6:.1f} MB",
            str(one["providers"]),
        )
        for one in found
    ]
    heads = ("  MODEL", "STATUS", "KIND", "LAYERS", "CONTEXT", "SIZE", "PROVIDERS")
    data = {"models": found, "default": default, "height": height}
    return Report(data, table(heads, rows) if rows else "no models yet: dllm worker on --model FILE")


@command(app, "show")
async def show(name: Annotated[str, typer.Argument(help="A registered model.")]) -> Report:
    """One model's manifest, to the byte."""
    from dllm_chat.cli.models import model_data
    from dllm_chat.cli.service import watching

    async with watching() as service:
        data: dict[str, Any] = await model_data(
            service.chain, name, await service.chain.reads.provable_height()
        )
    return Report(data, fields({key: value for key, value in data.items() if key != "pieces"}))


@command(app, "found")
def found_here() -> Report:
    """GGUF files that other programs keep on this machine: Ollama, LM Studio, llama.cpp, Hugging Face, GPT4All.

    \b
      dllm worker on --model FILE      registers one and serves it
    """
    from dllm_chat.models_found import find_models

    here = find_models()
    models = [
        {"name": one.name, "path": str(one.path), "size_bytes": one.size_bytes, "source": one.source}
        for one in here
    ]
    rows = [(one.name, f"{one.size_bytes / 1e9:.2f} GB", one.source, str(one.path)) for one in here]
    return Report(
        {"models": models}, table(("MODEL", "SIZE", "FROM", "FILE"), rows) if rows else "none was found"
    )
