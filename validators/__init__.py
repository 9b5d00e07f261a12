"""The checks on an order, each a service of its own: fraud, inventory, details."""
