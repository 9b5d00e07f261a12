"""Tables of services: stores, restore from changelogs, rows that expire."""
