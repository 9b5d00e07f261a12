"""Email service: e-mails about orders, from a stream join of orders, payments and customers."""
