"""The commands of `dllm-node`, a file for each thing that a person does with a node."""
