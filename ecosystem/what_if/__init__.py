"""What if: the services' own processors, run over a history in memory under other settings."""
