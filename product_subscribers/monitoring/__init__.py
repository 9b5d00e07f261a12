"""Counts what happens to products."""
