package orders;

import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** Fails orders of a customer whose session reaches the limit. Keys: customers in, orders out. */
final class FraudCheck implements Processor<String, Order, String, Verdict> {
  private static final double LIMIT = 2000;

  private ProcessorContext<String, Verdict> context;
  private KeyValueStore<String, Session> sessions;

  @Override
  public void init(ProcessorContext<String, Verdict> context) {
    this.context = context;
    sessions = context.getStateStore("sessions");
  }

  @Override
  public void process(Record<String, Order> record) {
    Order order = record.value();
    Session session = Session.add(sessions.get(record.key()), record.timestamp(), order.value());
    sessions.put(record.key(), session);
    context.forward(record.withKey(order.id()).withValue(Verdict.of(order, Checks.FRAUD, session.total() < LIMIT)));
  }
}
