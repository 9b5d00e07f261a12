"""Consumer groups: which services share one, who owns which partition, offsets that move between groups."""
