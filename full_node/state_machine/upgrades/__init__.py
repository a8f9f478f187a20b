"""How a chain goes on under other rules: which program runs which version, and what is changed on the way."""
