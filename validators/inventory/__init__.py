"""Inventory validator: is there enough stock? Reserves it for every order that passes."""
