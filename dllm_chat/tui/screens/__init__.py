"""Screens: the chat, and the questions that lie over it."""
