"""Load generator: sample orders at a steady rate, with payments and check-ins, every answer checked."""
