"""The log of products: every change there ever was, which nobody can change."""
