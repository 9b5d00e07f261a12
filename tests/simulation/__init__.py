"""The core services in a simulated world: the runtime's own loop and rebalances, a broker in memory, virtual time."""
