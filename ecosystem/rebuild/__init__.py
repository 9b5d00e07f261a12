"""Rebuilds the history from the topics, beside the one that answers, which it then replaces."""
