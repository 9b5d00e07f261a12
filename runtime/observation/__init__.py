"""Observing a running deployment: records as they come, consumer groups and their backlog. It changes nothing."""
