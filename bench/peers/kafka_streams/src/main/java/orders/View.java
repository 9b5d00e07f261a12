package orders;

import java.nio.charset.StandardCharsets;
import java.util.concurrent.atomic.AtomicReferenceArray;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.errors.InvalidStateStoreException;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.ReadOnlyKeyValueStore;

/** Reads orders by key from the store of their partition: a store of all partitions would search each of them. */
final class View {
  private final KafkaStreams streams;
  private final AtomicReferenceArray<ReadOnlyKeyValueStore<String, Order>> stores =
      new AtomicReferenceArray<>(Settings.PARTITIONS);

  View(KafkaStreams streams) {
    this.streams = streams;
  }

  /** Returns the order, or null. Throws {@link InvalidStateStoreException} while its partition is not assigned. */
  Order get(String id) {
    int partition = BuiltInPartitioner.partitionForKey(id.getBytes(StandardCharsets.UTF_8), Settings.PARTITIONS);
    try {
      return store(partition).get(id);
    } catch (InvalidStateStoreException moved) {
      stores.set(partition, null);
      return store(partition).get(id);
    }
  }

  private ReadOnlyKeyValueStore<String, Order> store(int partition) {
    ReadOnlyKeyValueStore<String, Order> store = stores.get(partition);
    if (store == null) {
      var query = StoreQueryParameters.fromNameAndType(Services.VIEW, QueryableStoreTypes.<String, Order>keyValueStore());
      store = streams.store(query.withPartition(partition));
      stores.set(partition, store);
    }
    return store;
  }
}
