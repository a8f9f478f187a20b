"""Conversations on disk: what was asked, what came back, what it cost, and how to find it again."""
