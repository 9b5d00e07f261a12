"""E-mail: composition of messages, and an SMTP client with a connection pool."""
