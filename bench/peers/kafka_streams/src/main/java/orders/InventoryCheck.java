package orders;

import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.TimestampedKeyValueStore;
import org.apache.kafka.streams.state.ValueAndTimestamp;

/** Reserves stock, and fails orders for more than is left. Keys: products in, orders out. */
final class InventoryCheck implements Processor<String, Order, String, Verdict> {
  private ProcessorContext<String, Verdict> context;
  private TimestampedKeyValueStore<String, Long> stock;
  private KeyValueStore<String, Long> reserved;

  @Override
  public void init(ProcessorContext<String, Verdict> context) {
    this.context = context;
    stock = context.getStateStore("stock");
    reserved = context.getStateStore("reserved");
  }

  @Override
  public void process(Record<String, Order> record) {
    Order order = record.value();
    Long before = reserved.get(record.key());
    long after = (before == null ? 0 : before) + order.quantity();
    ValueAndTimestamp<Long> there = stock.get(record.key());
    boolean passes = there != null && after <= there.value();
    if (passes) {
      reserved.put(record.key(), after);
    }
    context.forward(record.withKey(order.id()).withValue(Verdict.of(order, Checks.INVENTORY, passes)));
  }
}
