"""Reads and changes the required checks."""
