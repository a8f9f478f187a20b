"""``python -m local_worker.engine``: the engine process. Started by `local_worker.engine.client`, not by people."""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from local_worker.capacity import NoRoom
from local_worker.engine.devices import graphics_cards
from local_worker.engine.errors import ModelRefused
from local_worker.engine.fitting import ALL_THAT_FIT, Fitting, Wish, fit
from local_worker.engine.frames import Failure, FrameRefused
from local_worker.engine.llama import LlamaModel, LlamaVocabulary, library_folder
from local_worker.engine.messages import failure_frame, vocabulary_frame
from local_worker.engine.server import Server
from local_worker.engine.slices import CPU_SLICE_ROWS, GPU_SLICE_ROWS, batch_rows_for
from local_worker.engine.words_only import WordsOnly
from local_worker.memory import free_memory

WORDS_CONTEXT_ROWS = 4096
_MAX_WRITTEN_BYTES = 1 << 24
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def main(arguments: list[str] | None = None) -> int:
    """Serve one model over an inherited socket: 0 when the parent closed it, 2 refused model, 3 nonsense heard.

    With ``--vocabulary-only`` it says what tokens a file has, which may be without tensors, and ends. With
    ``--words-only`` it serves the tokenizer and loads no weights.
    """
    parser = argparse.ArgumentParser(prog="python -m local_worker.engine", description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--lanes-fd", type=int, help="where connections for lanes come from")
    parser.add_argument("--context-rows", type=int, help="else as many as fit")
    parser.add_argument("--sequences", type=int, help="else as many as fit")
    parser.add_argument("--gpu-layers", type=int, default=ALL_THAT_FIT)
    parser.add_argument("--memory-share", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--slice-threads", type=int, help="for batches of more than a few rows; else as many")
    parser.add_argument("--vocabulary-only", action="store_true")
    parser.add_argument("--words-only", action="store_true")
    parser.add_argument("--as-stored", action="store_true", help="weights stay in the mapped file alone")
    chosen = parser.parse_args(arguments)
    _bind_to_parent()
    connection = socket.socket(fileno=chosen.socket_fd)
    connection.set_inheritable(False)
    try:
        if chosen.vocabulary_only:
            connection.sendall(vocabulary_frame(0, LlamaVocabulary.of_file(chosen.model).describe()))
            return 0
        model = _load(chosen)
    except (ModelRefused, NoRoom) as refusal:
        connection.sendall(failure_frame(0, Failure.MODEL_REFUSED, f"{refusal.message}\n{refusal.hint}"))
        return 2
    # What loading left behind stays: the collector need not look at it again between two rows.
    gc.collect()
    gc.freeze()
    try:
        Server(connection, model, _inherited(chosen.lanes_fd)).run()
    except FrameRefused as error:
        _note(f"engine: the service sent what is no request: {error}")
        return 3
    except (BrokenPipeError, ConnectionResetError):
        _note("engine: the service is gone")
    return 0


def _load(chosen: argparse.Namespace) -> LlamaModel | WordsOnly:
    """The model, as much of it on graphics cards as was asked for or fits; without them where they fail.

    Raises:
        NoRoom, ModelRefused
    """
    if chosen.words_only:
        return WordsOnly(chosen.model, context_rows=chosen.context_rows or WORDS_CONTEXT_ROWS)
    wish = Wish(chosen.sequences, chosen.context_rows, chosen.gpu_layers, chosen.memory_share)
    cards = graphics_cards(library_folder()) if wish.gpu_layers else []
    fitting = fit(chosen.model, wish, free_memory(), cards)
    try:
        return _loaded(chosen, fitting)
    except ModelRefused as refusal:
        if not fitting.gpu_layers or wish.gpu_layers != ALL_THAT_FIT:
            raise
        _note(f"engine: not with {fitting.gpu_layers} layers on {fitting.device}: {refusal.message}")
        return _loaded(chosen, fit(chosen.model, wish, free_memory(), []))


def _loaded(chosen: argparse.Namespace, fitting: Fitting) -> LlamaModel:
    slice_rows = GPU_SLICE_ROWS if fitting.gpu_layers else CPU_SLICE_ROWS
    return LlamaModel(
        chosen.model,
        context_rows=fitting.places.context_rows,
        sequences=fitting.places.sequences,
        threads=chosen.threads,
        slice_threads=chosen.slice_threads,
        batch_rows=max(batch_rows_for(slice_rows), fitting.places.sequences),
        gpu_layers=fitting.gpu_layers,
        device=fitting.device,
        as_stored=chosen.as_stored,
    )


def _inherited(descriptor: int | None) -> socket.socket | None:
    if descriptor is None:
        return None
    handed = socket.socket(fileno=descriptor)
    handed.set_inheritable(False)
    return handed


def _bind_to_parent() -> None:
    """Die with the parent, gain no rights, leave no core dump with somebody's prompt in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The log is all that it writes: a model file that makes llama.cpp talk without end fills no disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_WRITTEN_BYTES, _MAX_WRITTEN_BYTES))
    # A terminal's ctrl+c goes to the whole process group; the service decides when the engine ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        for option, value in ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_NO_NEW_PRIVS, 1)):
            if prctl(option, value, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), f"prctl {option}")


def _note(text: str) -> None:
    os.write(2, f"{text}\n".encode())


if __name__ == "__main__":
    # No interpreter shutdown: llama.cpp's threads and memory go with the process.
    os._exit(main())
