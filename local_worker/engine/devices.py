"""Graphics cards, as ggml sees them: only a llama.cpp that was built for them has any."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_LIBRARIES: Final = ("libggml.so", "libggml.dylib", "ggml.dll")
_GPU, _INTEGRATED = 1, 2
"""ggml's kinds of devices that layers can be put on."""
MAX_NAME: Final = 80


@dataclass(frozen=True, slots=True)
class Device:
    """One graphics card."""

    name: str
    free_bytes: int


def graphics_cards(library_folder: Path) -> list[Device]:
    """What layers can be put on; empty where only the CPU computes.

    Args:
        library_folder: where ggml's own libraries lie.
    """
    ggml = _ggml(library_folder)
    found = []
    for index in range(ggml.ggml_backend_dev_count()):
        device = ggml.ggml_backend_dev_get(index)
        if ggml.ggml_backend_dev_type(device) not in (_GPU, _INTEGRATED):
            continue
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        words = ggml.ggml_backend_dev_description(device) or ggml.ggml_backend_dev_name(device) or b""
        found.append(Device(_plain(words), free.value))
    return found


def _plain(words: bytes) -> str:
    text = words.decode("ascii", "replace")[:MAX_NAME]
    return "".join(letter if letter.isprintable() else "?" for letter in text).strip()


def _ggml(folder: Path) -> Any:
    found = next((folder / name for name in _LIBRARIES if (folder / name).exists()), None)
    if found is None:
        raise FileNotFoundError(f"ggml's library is not in {folder}")
    library = ctypes.CDLL(str(found))
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    library.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    library.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    library.ggml_backend_dev_type.restype = ctypes.c_int
    size = ctypes.POINTER(ctypes.c_size_t)
    library.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, size, size]
    library.ggml_backend_dev_memory.restype = None
    for words in (library.ggml_backend_dev_description, library.ggml_backend_dev_name):
        words.argtypes = [ctypes.c_void_p]
        words.restype = ctypes.c_char_p
    return library
