"""Detection and reporting of records that the broker lost before they were read."""
