"""Notifications: e-mails to the shop's staff about changes of products and alerts."""
