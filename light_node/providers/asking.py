"""Asking several nodes at once, and hearing each as soon as it answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

from dllm_protocol.errors import DllmError
from light_node.source import Source

T = TypeVar("T")


async def as_answered(
    sources: Sequence[Source], question: Callable[[Source], Awaitable[T]]
) -> AsyncGenerator[tuple[Source, T | DllmError], None]:
    """Yield each node with its answer, or with the declared error that it came to.

    Use it under `contextlib.aclosing`: who is not heard any more is not waited for.
    """

    async def ask(source: Source) -> T | DllmError:
        try:
            return await question(source)
        except DllmError as error:
            return error

    tasks = {asyncio.create_task(ask(one)): one for one in sources}
    pending = set(tasks)
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task, source in tasks.items():
                if task in done:
                    yield source, task.result()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
