"""audit/reading."""
