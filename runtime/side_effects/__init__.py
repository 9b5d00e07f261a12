"""side_effects."""
