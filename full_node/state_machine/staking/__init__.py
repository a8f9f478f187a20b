"""Validators: who stakes on which consensus key, who has a seat, and what double signing costs."""
