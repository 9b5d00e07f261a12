"""Security: detects suspicious changes of products."""
