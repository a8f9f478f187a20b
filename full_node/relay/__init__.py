"""A blind forwarder: joins a listener and a dialer that cannot reach each other, and knows neither.

It keeps nothing, holds no key, reads no content and has no part in a chain.

limits    every bound, in one place
allowance how often one network address may open connections
pacing    how fast streams are forwarded
effects   what the core has done with connections
core      who listens, who dials, who is joined with whom; without sockets and clock
server    the websockets around it
metrics   what a monitor is shown
home      its folder
run       all of it together
cli       `dllm-node relay`
"""
