"""The contract between services: every message, every API body, and the catalogue of topics."""
