"""State stores of services: RocksDB, restore from changelogs, TTL tables."""
