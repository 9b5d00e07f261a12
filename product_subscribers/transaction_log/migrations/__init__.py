"""Alembic's folder: how a database of the log of products comes to its models."""
