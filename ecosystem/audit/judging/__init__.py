"""Judges the facts of the audit: one module for each promise."""
