"""Reading dead letters, and redriving each once."""
