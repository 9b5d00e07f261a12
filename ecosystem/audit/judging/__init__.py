"""audit/judging."""
