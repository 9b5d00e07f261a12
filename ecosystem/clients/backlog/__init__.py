"""Backlog of every service: the records that it has not processed yet, and how old the oldest of them is."""
