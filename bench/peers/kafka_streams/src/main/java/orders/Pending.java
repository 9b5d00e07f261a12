package orders;

import com.fasterxml.jackson.annotation.JsonIgnore;

/**
 * An order that lacks verdicts. The order itself may come after the first verdicts.
 *
 * @param passed one bit for each check that passed, so that a repeated verdict counts once
 */
record Pending(Order order, int passed, boolean failed, long sinceMs) {
  static final Pending NONE = new Pending(null, 0, false, 0);

  Pending with(Order known, long timeMs) {
    return new Pending(known, passed, failed, timeMs);
  }

  Pending with(Verdict verdict, long timeMs) {
    long since = sinceMs == 0 ? timeMs : sinceMs;
    return verdict.passed()
        ? new Pending(order, passed | 1 << Checks.ALL.indexOf(verdict.checkType()), failed, since)
        : new Pending(order, passed, true, since);
  }

  /** Returns the state of a decided order; null while verdicts, or the order itself, are missing. */
  @JsonIgnore
  String outcome() {
    if (order == null) {
      return null;
    }
    return failed ? "FAILED" : passed == (1 << Checks.ALL.size()) - 1 ? "VALIDATED" : null;
  }
}
