"""The portal: shows customers and staff the check-ins of an order. It listens, and nobody waits for it."""
