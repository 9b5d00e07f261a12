"""`orders up`: everything on this machine."""
