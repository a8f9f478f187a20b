"""The session protocol without I/O: bytes in, events and bytes out; sockets, clocks and disks are elsewhere.

transcript   hash chains over rows asked for and outputs given
handshake    from two keys on chain to one sealed stream
ledger       the client's promises: which voucher covers which rows
acceptance   which vouchers a provider takes
orders       what a provider's leg asks of whoever drives it
client       the client's end of one leg
provider     the provider's end of one leg
"""
