"""The steps, each once."""
