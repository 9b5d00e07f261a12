package orders;

/** What one validator says about an order, as in the topic {@code order-validations}. */
public record Verdict(String orderId, String checkType, String validationResult) {
  static Verdict of(Order order, String check, boolean passed) {
    return new Verdict(order.id(), check, passed ? "PASS" : "FAIL");
  }

  boolean passed() {
    return "PASS".equals(validationResult);
  }
}
