"""The version of this distribution, readable before anything else is imported.

A constant, because asking ``importlib.metadata`` costs more than starting Python does; a test holds it equal to
pyproject.toml's.
"""

VERSION = "0.1.0"
"""What ``dllm --version`` prints; semantic versioning, as in CHANGELOG.md."""
