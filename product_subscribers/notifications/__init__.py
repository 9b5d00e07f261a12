"""Writes to the shop's people whatever happens to a product, and whatever is suspicious about it."""
