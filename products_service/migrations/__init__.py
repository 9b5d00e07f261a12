"""Alembic's folder: how a database of the product service comes to its models."""
