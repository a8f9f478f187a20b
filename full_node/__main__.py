"""`python -m full_node` is `dllm-node`."""

from full_node.cli import run

run()
