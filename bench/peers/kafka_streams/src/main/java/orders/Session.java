package orders;

/** What a customer ordered without a pause of an hour: time of the last order, and the sum of their values. */
record Session(long lastMs, double total) {
  static final long GAP_MS = 3_600_000;

  static Session add(Session before, long timeMs, double value) {
    return before == null || timeMs - before.lastMs > GAP_MS
        ? new Session(timeMs, value)
        : new Session(Math.max(timeMs, before.lastMs), before.total + value);
  }
}
