"""Our counters and histograms show what those of the Prometheus client show, and cost a fixed number of steps."""

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from runtime.metrics.instruments import Counter, Histogram

BUCKETS = (0.005, 0.01, 0.5, 1, 60, 7 * 24 * 3600)
SERIES = st.tuples(st.sampled_from(["GET", "POST"]), st.sampled_from(["/v1/orders", 'a "quoted"\nroute']))
AMOUNTS = st.one_of(st.sampled_from([0, *BUCKETS]), st.floats(0, 1e7))


@given(st.lists(st.tuples(SERIES, AMOUNTS)))
def test_they_look_like_those_of_the_prometheus_client(written):
    own, theirs = CollectorRegistry(), CollectorRegistry()
    labels = ("method", "route")
    counter = Counter("things_total", "Things that are counted", labels, own)
    histogram = Histogram("thing_seconds", "Time of a thing", labels, BUCKETS, own)
    other_counter = prometheus_client.Counter("things_total", "Things that are counted", labels, registry=theirs)
    other_histogram = prometheus_client.Histogram(
        "thing_seconds", "Time of a thing", labels, buckets=BUCKETS, registry=theirs
    )
    for series, amount in written:
        for one in (counter, other_counter):
            one.labels(*series).inc(amount)
        for one in (histogram, other_histogram):
            one.labels(*series).observe(amount)
    assert generate_latest(own) == generate_latest(theirs)


def test_without_labels_there_is_one_series():
    registry = CollectorRegistry()
    counter = Counter("things_total", "Things that are counted", (), registry)
    assert b"\nthings_total" not in generate_latest(registry), "it is shown once somebody has its series"
    counter.labels().inc()
    counter.labels().inc(2)
    Histogram("thing_seconds", "Time of a thing", (), BUCKETS, registry).labels().observe(0.5)
    assert registry.get_sample_value("things_total") == 3
    assert registry.get_sample_value("thing_seconds_bucket", {"le": "0.5"}) == 1
    assert registry.get_sample_value("thing_seconds_bucket", {"le": "0.01"}) == 0


def test_names_and_labels_are_checked():
    registry = CollectorRegistry()
    counter = Counter("things_total", "Things that are counted", ("kind",), registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Counter("things_total", "Others", (), registry)
    with pytest.raises(ValueError, match="the labels are kind: 2 values are given"):
        counter.labels("a", "b")
