"""Alembic migrations of the frontend database."""
