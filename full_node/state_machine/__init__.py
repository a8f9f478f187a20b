"""The application: a deterministic function from state and transactions to state and results.

`application.Application` is the only door. It reads through a `state.StateReader`, never writes, and returns what
changed; engines store it. No clock, no chance, no disk: block time comes with the block.
"""
