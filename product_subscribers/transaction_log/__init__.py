"""Transaction log: an append-only record of every change of every product."""
