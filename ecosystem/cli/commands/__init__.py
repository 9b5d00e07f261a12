"""The commands of `orders`, a module each."""
