"""Alembic's folder: how a database of the check-in service comes to its models."""
