"""The check-in service: takes reports from the spot, keeps them in a database of its own, and announces them."""
