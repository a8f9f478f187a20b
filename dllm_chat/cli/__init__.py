"""`dllm`: everything that can be done, from a terminal or a script.

main       entry point: the version at once, else one command, one report, one exit code
app        the tree of commands; each group is imported when it is used
command    turns an async function into a command with --json
output     the only module that writes to stdout and stderr
failures   what went wrong, as an envelope and an exit code
"""
