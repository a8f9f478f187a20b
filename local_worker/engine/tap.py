"""Takes hidden states out of llama.cpp's computation behind a chunk's last block, and puts them in where needed.

llama.cpp calls back at every node of its graph: first it asks whether we want to see the node, and when it has been
computed it shows it. What is behind the node where we answer False is not computed any more: neither the output norm
nor the output matrix. These calls cost a third of a microsecond each as long as no other Python thread wants to run.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from local_worker.engine.messages import Hidden
from local_worker.engine.rows import BatchFailed

_LIBRARIES: Final = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll")


class Tap:
    """One context's callback. The object must live as long as the context does."""

    def __init__(
        self, library_folder: Path, *, n_embd: int, rows: int, entry: bytes | None, exit_node: bytes | None
    ) -> None:
        """Prepare.

        Args:
            library_folder: where ggml's own library lies.
            n_embd: width of a row.
            rows: most rows of one computation.
            entry: name of the node whose rows are replaced by `entering`; None for none.
            exit_node: name of the node whose rows become `leaving`, and behind which nothing is computed.
        """
        self._ggml = _ggml(library_folder)
        self._entry, self._exit = entry, exit_node
        self.has_entry = entry is not None
        self._n_embd = n_embd
        self.entering: Hidden = np.zeros((rows, n_embd), dtype=np.float32)
        self.leaving: Hidden = np.zeros((rows, n_embd), dtype=np.float32)
        self._rows = 0
        self._missing: set[bytes] = set()
        self._problem = ""

    def expect(self, rows: int) -> None:
        """A computation of ``rows`` rows begins; `entering` holds them where there is an entry."""
        self._rows = rows
        self._missing = {name for name in (self._entry, self._exit) if name is not None}
        self._problem = ""

    def check(self) -> None:
        """The computation ended.

        Raises:
            BatchFailed: rows did not go in or come out as they should.
        """
        if not self._problem and self._missing:
            self._problem = f"the graph has no node {min(self._missing).decode()}"
        if self._problem:
            raise BatchFailed(self._problem)

    def callback(self) -> Callable[[int, bool, int | None], bool]:
        """What llama.cpp calls; never raises, because nobody would hear it."""
        # Some hundred calls a row: all that most of them need stands in the closure.
        name_of, ends = self._ggml.ggml_get_name, (self._exit, self._entry)

        def called(tensor: int, ask: bool, _user_data: int | None) -> bool:
            if (name := name_of(tensor)) not in ends:
                # Only nodes that were asked for are shown; going on is right for all others.
                return not ask
            return ask or self._shown(tensor, name)

        return called

    def _shown(self, tensor: int, name: bytes) -> bool:
        """A node that was asked for has been computed: whether to go on behind it."""
        size = self._rows * self._n_embd * 4
        if self._ggml.ggml_nbytes(tensor) != size:
            self._problem = f"node {name.decode()} has {self._ggml.ggml_nbytes(tensor)} bytes, not {size}"
            return False
        self._missing.discard(name)
        if name == self._entry:
            self._ggml.ggml_backend_tensor_set(tensor, self.entering.ctypes.data, 0, size)
            return True
        self._ggml.ggml_backend_tensor_get(tensor, self.leaving.ctypes.data, 0, size)
        return False


def _ggml(folder: Path) -> Any:
    """ggml's library, already in this process: the same file is not loaded twice."""
    found = next((folder / name for name in _LIBRARIES if (folder / name).exists()), None)
    if found is None:
        raise FileNotFoundError(f"ggml's library is not in {folder}")
    # Nothing else runs Python in this process, so that handing the interpreter's lock over and back, hundreds of times
    # a row, would serve nobody.
    library = ctypes.PyDLL(str(found))
    library.ggml_get_name.argtypes = [ctypes.c_void_p]
    library.ggml_get_name.restype = ctypes.c_char_p
    library.ggml_nbytes.argtypes = [ctypes.c_void_p]
    library.ggml_nbytes.restype = ctypes.c_size_t
    for move in (library.ggml_backend_tensor_get, library.ggml_backend_tensor_set):
        move.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        move.restype = None
    return library
