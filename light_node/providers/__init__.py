"""The full nodes that a light client asks: one primary, and witnesses that must show the same headers."""
