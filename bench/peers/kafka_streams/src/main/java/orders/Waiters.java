package orders;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Consumer;

/** Requests that wait for the outcome of an order. */
final class Waiters {
  private final ConcurrentHashMap<String, List<Consumer<Order>>> byId = new ConcurrentHashMap<>();

  void add(String id, Consumer<Order> waiter) {
    byId.compute(
        id,
        (key, there) -> {
          List<Consumer<Order>> waiters = there == null ? new ArrayList<>(1) : there;
          waiters.add(waiter);
          return waiters;
        });
  }

  void remove(String id, Consumer<Order> waiter) {
    byId.computeIfPresent(
        id,
        (key, waiters) -> {
          waiters.remove(waiter);
          return waiters.isEmpty() ? null : waiters;
        });
  }

  /** Called for every committed outcome, by the thread that processes the stream. */
  void decided(String id, Order order) {
    List<Consumer<Order>> waiters = byId.remove(id);
    if (waiters != null) {
      waiters.forEach(waiter -> waiter.accept(order));
    }
  }
}
