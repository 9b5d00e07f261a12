"""Legacy systems, in both directions: their rows become messages, and messages become their rows."""
