"""Consumer groups: assignment of partitions, members' reachability, and offset migration between compositions."""
