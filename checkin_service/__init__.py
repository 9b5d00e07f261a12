"""Check-in service: accepts check-ins over HTTP, stores them, publishes them through an outbox."""
