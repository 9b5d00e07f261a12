"""E-mails: composed and sent by SMTP."""
