"""The parties' side of a relay: listen there or dial, with outbound connections only.

urls       a relay's address as people type it, and which of them are protected
errors     what goes wrong, with what to do
connection one websocket to a relay, and the stream that it becomes
listening  hold an address, answer who dials, come back when the connection is lost
"""
