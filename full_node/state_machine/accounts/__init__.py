"""Balances, sequences, chat keys and pools."""
