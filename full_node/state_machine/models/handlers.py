"""Actions on the model registry."""

from __future__ import annotations

from dllm_protocol.actions import RegisterModel
from dllm_protocol.model_manifest import manifest_hash
from dllm_protocol.refusals import AlreadyExists
from full_node.state_machine.accounts.changes import debit
from full_node.state_machine.context import ActionContext
from full_node.state_machine.models import view
from full_node.state_machine.models.changes import add_model
from full_node.state_machine.models.rules import check_manifest


def register_model(ctx: ActionContext, action: RegisterModel) -> None:
    """Put a model into the registry under its manifest's name."""
    manifest = action.manifest

    # CHECK
    check_manifest(manifest)
    known = view.model(ctx.state, manifest.name)
    if known is not None:
        raise AlreadyExists(
            f"the model {manifest.name!r} is registered by {known.owner.hex()} "
            f"as {manifest_hash(known.manifest).hex()[:16]}…",
            hint="choose another name, such as one with your own prefix",
        )

    # CHARGE
    debit(ctx, ctx.params.model_bond_udllm)

    # CHANGE
    add_model(ctx.state, ctx.sender, manifest, ctx.params.model_bond_udllm)

    # EVENT
    ctx.emit("model_registered", model=manifest.name, owner=ctx.sender, manifest=manifest_hash(manifest))
