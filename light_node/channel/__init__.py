"""The edge of the sealed channel: frames over a websocket, bounded in size, number and time.

limits   every bound of an edge, in one place
errors   what a channel fails with
link     one websocket, either end: send, receive, close, each with a deadline
client   open a channel to a provider
server   take channels from clients
"""
