import logging

import pytest


@pytest.fixture(autouse=True)
def quiet():
    """Silences the logs: thousands of crashing workers would bury the output of a failing test."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
