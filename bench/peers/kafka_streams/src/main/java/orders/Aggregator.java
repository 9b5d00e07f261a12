package orders;

import java.time.Duration;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.ProcessorSupplier;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * Joins an order with the verdicts on it. Validates it when all checks have passed, fails it at the first that has not,
 * or when verdicts are missing after a minute.
 *
 * <p>One store instead of windowed joins: a windowed join keeps both sides, and their changelogs, for the whole window.
 */
final class Aggregator<V> implements Processor<String, V, String, Order> {
  private static final Duration DEADLINE = Duration.ofSeconds(60);
  private static final Duration SWEEP = Duration.ofSeconds(10);

  private interface Change<V> {
    Pending apply(Pending before, V value, long timeMs);
  }

  private final Change<V> change;
  private final boolean sweeps;
  private ProcessorContext<String, Order> context;
  private KeyValueStore<String, Pending> pending;

  private Aggregator(Change<V> change, boolean sweeps) {
    this.change = change;
    this.sweeps = sweeps;
  }

  static ProcessorSupplier<String, Order, String, Order> ofOrders() {
    return () -> new Aggregator<>(Pending::with, true);
  }

  static ProcessorSupplier<String, Verdict, String, Order> ofVerdicts() {
    return () -> new Aggregator<>(Pending::with, false);
  }

  @Override
  public void init(ProcessorContext<String, Order> context) {
    this.context = context;
    pending = context.getStateStore("pending");
    if (sweeps) {
      context.schedule(SWEEP, PunctuationType.WALL_CLOCK_TIME, this::failLateOrders);
    }
  }

  @Override
  public void process(Record<String, V> record) {
    Pending before = pending.get(record.key());
    Pending after = change.apply(before == null ? Pending.NONE : before, record.value(), record.timestamp());
    String outcome = after.outcome();
    if (outcome == null) {
      pending.put(record.key(), after);
    } else {
      pending.delete(record.key());
      context.forward(record.withValue(after.order().withState(outcome)));
    }
  }

  /** Also forgets verdicts that came after the outcome: those are of an order that was failed by another check. */
  private void failLateOrders(long nowMs) {
    try (KeyValueIterator<String, Pending> all = pending.all()) {
      while (all.hasNext()) {
        KeyValue<String, Pending> entry = all.next();
        if (nowMs - entry.value.sinceMs() > DEADLINE.toMillis()) {
          pending.delete(entry.key);
          if (entry.value.order() != null) {
            context.forward(new Record<>(entry.key, entry.value.order().withState("FAILED"), nowMs));
          }
        }
      }
    }
  }
}
