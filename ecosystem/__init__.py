"""The `orders` command: run a service, run all of it, drive it, look at it."""
