"""Numbers pipeline: the smallest example on the parts of the product. Read `stages.py` first."""
