"""A full node's JSON-RPC on this machine, each answer checked before it leaves.

Nothing that a full node says is passed on as it came: an answer is read into typed values, held against verified
headers, and written anew from what was proved. What no hash covers is left empty or refused.
"""
