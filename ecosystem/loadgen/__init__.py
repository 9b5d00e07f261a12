"""A client that trusts nobody: sample orders at a steady rate, what goes with them, and all of it read back."""
