"""Alembic's folder of all services: its environment, and steps that migrations share."""
