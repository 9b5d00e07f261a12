"""Contract between the services: messages, HTTP bodies, and the catalogue of topics."""
