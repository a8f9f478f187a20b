"""Backup and restore of a node's folder."""
