"""What is looked at before a worker is started and a bond is posted for it: the installation, its file, its server."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from urllib.parse import urlsplit

from dllm_chat.models_found import is_gguf
from dllm_chat.sanitize import clean_line
from dllm_chat.serving_from import ServingFrom
from dllm_protocol.errors import DllmError, NetworkUnreachable, NotFound, UsageRefused

WORKER_EXTRA = ("numpy", "llama_cpp")
"""Modules of the extra `worker` without which its programs do not even begin."""
SERVER_TIMEOUT_S = 5.0


class ClientOnly(DllmError):
    """This installation asks and pays; what serves is not there."""

    code = "E_CLIENT_ONLY"
    exit_code = 3


def require_worker_extra() -> None:
    """Look whether the worker's programs can run here.

    Raises:
        ClientOnly: what they need is not installed.
    """
    missing = [name for name in WORKER_EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise ClientOnly(
            f"this installation is client-only: {' and '.join(missing)} missing",
            hint="dllm network join BUNDLE, or make setup for the rest",
        )


async def check_serving(model: Path | None, server: ServingFrom | None) -> None:
    """Everything that can be known without a worker of what one is to serve.

    Args:
        model: None: the one in the package, or a model in pieces.
        server: what computes its rows; None: llama.cpp here.

    Raises:
        ClientOnly: nothing can be served from this installation.
        NotFound, UsageRefused: there is no such file, or it is no model; the server's address is none.
        NetworkUnreachable: the server does not answer.
    """
    require_worker_extra()
    if model is not None:
        _check_file(model)
    if server is not None:
        await _check_server(server.url)


def _check_file(model: Path) -> None:
    if not model.is_file():
        raise NotFound(f"there is no model file {model}", hint="dllm model found lists what this machine has")
    if not is_gguf(model):
        raise UsageRefused(
            f"{model} is not a GGUF file that can be served",
            hint="dllm model found lists what this machine has",
        )


async def _check_server(url: str) -> None:
    """Any answer will do here, a refusal too: the worker examines the server, with its key."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=SERVER_TIMEOUT_S)
    try:
        # A password in the address is refused by the worker, and shown by nobody.
        place = clean_line(urlsplit(url).netloc.rpartition("@")[2], 120)
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as http,
            http.get(f"{url.rstrip('/')}/models", allow_redirects=False),
        ):
            return
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError):
        raise UsageRefused(
            "--url is no address of a server", hint="for example http://127.0.0.1:8000/v1"
        ) from None
    except TimeoutError:
        why = f"no word in {SERVER_TIMEOUT_S:g} s"
    except OSError as error:
        # Lookups of names count theirs downwards, and bring their words along.
        counted = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        why = clean_line(counted or type(error).__name__)
    except aiohttp.ClientError as error:
        why = type(error).__name__
    raise NetworkUnreachable(
        f"the server at {place} does not answer: {why}", hint="is it running, and is the address right?"
    )
