"""Holders: what providers say of themselves for placement."""
