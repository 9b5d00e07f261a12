import logging

import pytest


@pytest.fixture(autouse=True)
def quiet():
    """Workers that crash and lose their broker log much; thousands of them would drown what a test has to say."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
