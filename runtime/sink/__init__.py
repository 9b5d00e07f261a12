"""Bulk sinks: records of topics become rows of a database, each once, beside the processing loop."""
