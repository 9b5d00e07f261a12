"""The product service: keeps what the shop sells in a database of its own, and announces every change."""
