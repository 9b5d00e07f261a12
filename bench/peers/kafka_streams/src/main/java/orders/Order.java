package orders;

/** An order as in the topic {@code orders}: a request in state CREATED, its outcome in state VALIDATED or FAILED. */
public record Order(String id, long customerId, String state, String product, int quantity, double price) {
  static final String CREATED = "CREATED";

  Order withState(String other) {
    return new Order(id, customerId, other, product, quantity, price);
  }

  boolean isDecided() {
    return !CREATED.equals(state);
  }

  double value() {
    return quantity * price;
  }
}
