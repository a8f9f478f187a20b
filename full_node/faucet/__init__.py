"""The faucet of a test network: gives a little to whoever asks, not too often, and proves each payment to itself.

It is a client program like any other, run by an operator: it believes no node and reads the chain through
`light_node`. It shares nothing with a running full node but the command line.

home     its folder: key, grants, what its light node trusts
grants   who got something lately, on disk; the limits
payer    one transaction at a time, proved
server   one HTTP address, JSON in and out
run      all of it together
cli      `dllm-node faucet`
"""
