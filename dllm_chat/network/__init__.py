"""Which network is used: how it is joined, shared with others, and how its trust is kept."""
