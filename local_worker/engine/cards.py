"""``python -m local_worker.engine.cards``: bytes that are free on each graphics card, as a line of JSON.

A process of its own: drivers that are loaded once stay loaded, and one that crashes takes nobody along.
"""

from __future__ import annotations

import json
import sys

from local_worker.engine.devices import graphics_cards
from local_worker.engine.llama import library_folder

if __name__ == "__main__":
    sys.stdout.write(json.dumps([card.free_bytes for card in graphics_cards(library_folder())]) + "\n")
