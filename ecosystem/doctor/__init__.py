"""Checks of a deployment for `orders doctor`: what is wrong, why it matters, and the command that mends it."""
