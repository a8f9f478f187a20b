"""What providers' past work is worth."""
