"""The email service: letters for orders joined with payments and customers."""
