"""Portal: a read model of the check-ins of each order, for customers and staff."""
