"""Trains the small model that ships in the package, from a corpus that the project writes about itself."""
