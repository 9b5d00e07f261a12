"""Records as other producers write them: the producers, and what becomes of each record here."""
