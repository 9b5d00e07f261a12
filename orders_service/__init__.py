"""The orders service: REST API, the gathering of verdicts, the queryable view of orders."""
