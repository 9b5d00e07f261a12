"""Alembic's folder: how a database of the history service comes to its models."""
