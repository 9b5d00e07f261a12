"""History service: keeps every record of every public topic, and the stages of every order, in a database."""
