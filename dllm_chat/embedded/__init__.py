"""The embedded network: a whole DLLM network on this machine, made of the real parts, for whoever has none joined.

door         join it (starting it where it does not run) and hold a lease
supervisor   the process that starts, watches and ends its node and workers
chain        its genesis: a random chain id, play money, short epochs
processes    one child process: started, watched, ended, never orphaned
patient_source  its node, waited for while it is started again
wire         the few words that door and supervisor exchange
"""
