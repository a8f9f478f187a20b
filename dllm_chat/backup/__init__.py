"""Backup and restore of everything that a person has in their home."""
