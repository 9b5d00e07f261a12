"""What the metrics of the loop cost: a fixed number of steps for a batch, and two for an order."""

from collections import Counter

import pytest

from bench.processing import Bench
from bench.switchable import Metrics
from runtime.metrics.instruments import CounterSeries, HistogramSeries
from runtime.state.stores import MemoryStores


@pytest.fixture
def written(monkeypatch):
    """How often counters and histograms are written."""
    found = Counter()

    def count(series, name):
        real = getattr(series, name)

        def counted(*args):
            found[name] += 1
            real(*args)

        monkeypatch.setattr(series, name, counted)

    count(CounterSeries, "inc")
    count(HistogramSeries, "observe")
    return found


@pytest.mark.parametrize("orders", [1, 50])
async def test_a_batch_writes_a_fixed_number_of_metrics_and_two_for_each_order(written, orders):
    bench = Bench(batch=orders, stores=MemoryStores())
    await bench.start()
    await bench.place(orders)  # the kinds of events of a batch are known from now on
    written.clear()
    await bench.place(orders)
    # Batches, records, messages, fused ones; verdicts by check and result, at most six kinds.
    assert 4 <= written["inc"] <= 4 + 6
    assert written["observe"] == 3 + 2 * orders  # size, processing, commit; times to the first verdict and the outcome


async def test_switched_off_nothing_is_written_and_on_again_everything(written):
    bench, switch = Bench(batch=5, stores=MemoryStores()), Metrics()
    await bench.start()
    switch.off()
    try:
        written.clear()
        await bench.place(5)
        assert not written
    finally:
        switch.on()
    await bench.place(5)
    assert written["observe"] == 3 + 2 * 5
