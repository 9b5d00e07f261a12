"""Webhook service: delivers events to the URLs that have subscribed to them."""
