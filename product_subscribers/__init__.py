"""Who listens to products: monitoring, transaction log, security, notifications, each a service of its own."""
