"""Errors of an import. Their texts are meant for the user."""


class ImportStopped(Exception):
    """The import cannot go on until somebody acts. The text says who and how."""


class SourceUnavailable(Exception):
    """The source cannot be read now; it may be later."""
