"""What services declare, and what passes between broker, loop and HTTP handlers. Pure."""
