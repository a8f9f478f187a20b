"""The far end of one hop, a process: sends back what it gets, over a sealed channel and over a bare socket."""

from __future__ import annotations

import asyncio
import sys

from dllm_protocol.messages import FORM_F32, MAX_FRAME_BYTES
from dllm_protocol.sealing import SealingKey
from dllm_protocol.stage_link import HandedRows, StageLink
from light_node.channel.link import Link
from light_node.channel.server import serve_channels
from local_worker.hidden_form import pack, unpack

NEAR, FAR = SealingKey(b"\x01" * 32), SealingKey(b"\x02" * 32)
"""Ephemeral keys of both ends; nothing is hidden from anybody here."""
WIDTH = 2048
LENGTH_BYTES = 4


def handed_back(stage: StageLink, frame: bytes) -> bytes:
    """Rows taken as a stage takes them, and handed on as a stage does: opened, checked, packed, sealed."""
    (message,) = stage.open(frame)
    assert isinstance(message, HandedRows)
    rows = unpack(message.data, message.rows, WIDTH, message.form)
    return stage.seal(
        HandedRows(
            message.request + 1,
            message.first_position + 1,
            message.rows,
            message.form,
            pack(rows, FORM_F32),
        )
    )


async def _sealed(link: Link) -> None:
    link.allow(MAX_FRAME_BYTES)
    stage = StageLink(FAR.provider_stream(NEAR.public_key))
    while True:
        await link.send(handed_back(stage, await link.receive()))


async def _bare(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readexactly(LENGTH_BYTES)
            writer.write(head + await reader.readexactly(int.from_bytes(head, "little")))
    except asyncio.IncompleteReadError:
        writer.close()


async def _serve() -> None:
    sealed = await serve_channels("127.0.0.1", 0, _sealed)
    bare = await asyncio.start_server(_bare, "127.0.0.1", 0)
    print(sealed.port, bare.sockets[0].getsockname()[1], flush=True)
    # Whoever started this process holds the other end of stdin; its end is ours.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    bare.close()
    await sealed.close()


if __name__ == "__main__":
    asyncio.run(_serve())
