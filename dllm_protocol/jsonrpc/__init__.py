"""CometBFT's dialect of JSON-RPC: requests, parameters, errors and queries, without sockets.

Full nodes and the verified proxy speak it alike.
"""
