"""Migrations of the history of the numbers pipeline."""
