package orders;

import static orders.Serdes.COUNT;
import static orders.Serdes.KEY;
import static orders.Serdes.ORDER;
import static orders.Serdes.PENDING;
import static orders.Serdes.SESSION;
import static orders.Serdes.VERDICT;

import java.util.Set;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Repartitioned;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The services of the core as parts of one topology: one source, one consumer, one transaction for all of them.
 *
 * <p>A service that runs apart is a topology with the same part alone.
 */
final class Services {
  static final String VIEW = "orders-view";

  private final StreamsBuilder builder = new StreamsBuilder();
  private final KStream<String, Order> orders;
  private final KStream<String, Order> created;

  Services(Set<String> names, Waiters waiters) {
    boolean view = names.contains("orders");
    orders = view ? viewed() : builder.stream(Topics.ORDERS, Consumed.with(KEY, ORDER));
    created = orders.filter((id, order) -> order != null && !order.isDecided());
    if (view) {
      orders.filter((id, order) -> order != null && order.isDecided()).foreach(waiters::decided);
    }
    if (names.contains("details")) {
      details();
    }
    if (names.contains("fraud")) {
      fraud();
    }
    if (names.contains("inventory")) {
      inventory();
    }
    if (names.contains("aggregator")) {
      aggregator();
    }
  }

  StreamsBuilder builder() {
    return builder;
  }

  /** The current state of each order, for reads. The topic itself is its changelog. */
  private KStream<String, Order> viewed() {
    var store = Materialized.<String, Order, KeyValueStore<Bytes, byte[]>>as(VIEW).withCachingDisabled();
    return builder.table(Topics.ORDERS, Consumed.with(KEY, ORDER), store.withKeySerde(KEY).withValueSerde(ORDER)).toStream();
  }

  private void details() {
    say(created.mapValues(
        o -> Verdict.of(o, Checks.DETAILS, o.quantity() > 0 && o.price() >= 0 && o.product() != null)));
  }

  private void fraud() {
    builder.addStateStore(Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore("sessions"), KEY, SESSION).withCachingEnabled());
    say(created.selectKey((id, o) -> Long.toString(o.customerId()))
        .repartition(Repartitioned.with(KEY, ORDER).withName("by-customer").withNumberOfPartitions(Settings.PARTITIONS))
        .process(FraudCheck::new, "sessions"));
  }

  private void inventory() {
    builder.table(Topics.STOCK, Consumed.with(KEY, COUNT), Materialized.as("stock"));
    builder.addStateStore(Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore("reserved"), KEY, COUNT).withCachingEnabled());
    say(created.selectKey((id, o) -> o.product())
        .repartition(Repartitioned.with(KEY, ORDER).withName("by-product").withNumberOfPartitions(Settings.PARTITIONS))
        .process(InventoryCheck::new, "stock", "reserved"));
  }

  private void aggregator() {
    builder.addStateStore(Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore("pending"), KEY, PENDING).withCachingEnabled());
    KStream<String, Order> fromOrders = created.process(Aggregator.ofOrders(), "pending");
    builder.stream(Topics.VALIDATIONS, Consumed.with(KEY, VERDICT))
        .process(Aggregator.ofVerdicts(), "pending")
        .merge(fromOrders)
        .to(Topics.ORDERS, Produced.with(KEY, ORDER));
  }

  private static void say(KStream<String, Verdict> verdicts) {
    verdicts.to(Topics.VALIDATIONS, Produced.with(KEY, VERDICT));
  }
}
