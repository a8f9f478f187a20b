"""`python -m local_worker` is `dllm-worker`."""

from local_worker.cli import run

run()
