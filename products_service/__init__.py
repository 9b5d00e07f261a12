"""Product service: product catalogue over HTTP, in its own database, published through an outbox."""
