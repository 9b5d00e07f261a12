"""The HTTP server of a worker: routing to key owners, operational routes, OpenAPI and AsyncAPI documents."""
