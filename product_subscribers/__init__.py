"""Subscribers of `products`: monitoring, transaction log, security, notifications. One service each."""
