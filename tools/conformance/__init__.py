"""Whether DLLM agrees with other implementations: `make conformance` counts, family by family."""
