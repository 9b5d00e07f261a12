"""Import of legacy systems: rows of exports and of database tables become messages, each once."""
