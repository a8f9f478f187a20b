"""From a question to the machines that answer it: proved offers, quotes, sessions and transactions."""
