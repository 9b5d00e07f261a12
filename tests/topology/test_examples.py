"""The examples do what they say."""

import doctest

from examples import minimal_service


def test_the_minimal_service_greets_each_validated_order_once():
    results = doctest.testmod(minimal_service, raise_on_error=True)
    assert results.attempted == 6
