"""What every service stands on: one loop that takes, decides, commits and applies."""
