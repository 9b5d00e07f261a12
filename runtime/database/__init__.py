"""PostgreSQL for services that keep a database: pool, migrations, outbox."""
