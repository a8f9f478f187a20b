"""Providers: bonds, keys, offers and slashing."""
