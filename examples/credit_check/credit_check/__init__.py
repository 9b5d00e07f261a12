"""Validator CREDIT_CHECK."""
