"""Reads the sources of the audit."""
