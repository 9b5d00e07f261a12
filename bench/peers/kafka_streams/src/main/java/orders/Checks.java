package orders;

import java.util.List;

/** Names of the checks that an order must pass. */
final class Checks {
  static final String DETAILS = "ORDER_DETAILS_CHECK";
  static final String FRAUD = "FRAUD_CHECK";
  static final String INVENTORY = "INVENTORY_CHECK";
  static final List<String> ALL = List.of(DETAILS, FRAUD, INVENTORY);

  private Checks() {}
}
