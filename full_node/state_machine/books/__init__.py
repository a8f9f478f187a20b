"""Offer books: standing offers, frozen by epoch."""
