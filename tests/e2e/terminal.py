"""A terminal in a process of its own: ``python -m tests.e2e.terminal ask TEXT`` and the like, one JSON object a line.

hold         opens the network, says so, and keeps it until stdin ends
ask TEXT …   asks each text in a conversation of its own, then lets go
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from dllm_chat.config import load_config
from dllm_chat.paths import find_paths
from dllm_chat.session.service import ChatService
from tests.e2e.machine import ask


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main(verb: str, *texts: str) -> None:
    paths = find_paths()
    service = ChatService(paths, load_config(paths.config_file))
    began = time.monotonic()
    await service.open(lambda text: say(progress=text))
    try:
        before = await service.balance()
        say(opened=service.chain_id, seconds=time.monotonic() - began, spendable=before.spendable_udllm)
        for text in texts:
            began = time.monotonic()
            heard = await ask(service, text)
            answer = heard.answer
            say(
                reply=answer.reply,
                session=heard.session,
                cost=answer.cost_udllm,
                fees=answer.fees_udllm,
                seconds=time.monotonic() - began,
            )
        if verb == "hold":
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    finally:
        await service.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
