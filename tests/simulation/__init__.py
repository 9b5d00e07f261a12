"""The core in a simulated world: the runtime's own loop and handover on a broker in memory, in virtual time."""
