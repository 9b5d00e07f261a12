"""Consumer groups: placement of partitions, reachability, offset migration between compositions."""
