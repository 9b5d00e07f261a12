"""Orders service: REST API, aggregator of verdicts, materialised view of every order."""
