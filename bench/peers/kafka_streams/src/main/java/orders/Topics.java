package orders;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.LongSerializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Names of the topics, and what has to be in them before the first order. */
final class Topics {
  static final String ORDERS = Settings.PREFIX + "orders";
  static final String VALIDATIONS = Settings.PREFIX + "order-validations";
  static final String STOCK = Settings.PREFIX + "warehouse-inventory";

  private static final long PLENTY = 1_000_000_000_000L;

  private Topics() {}

  static void create() throws ExecutionException, InterruptedException {
    Map<String, String> compacted = Map.of("cleanup.policy", "compact");
    Properties properties = Settings.connection();
    try (Admin admin = Admin.create(properties)) {
      Set<String> existing = admin.listTopics().names().get();
      Map<String, NewTopic> topics = new HashMap<>();
      topics.put(ORDERS, topic(ORDERS).configs(compacted));
      topics.put(VALIDATIONS, topic(VALIDATIONS));
      topics.put(STOCK, topic(STOCK).configs(compacted));
      topics.keySet().removeAll(existing);
      try {
        admin.createTopics(topics.values()).all().get();
      } catch (ExecutionException e) { // services that run apart start at the same time
        if (!(e.getCause() instanceof TopicExistsException)) {
          throw e;
        }
      }
    }
    properties.put("acks", "all");
    try (var producer = new KafkaProducer<>(properties, new StringSerializer(), new LongSerializer())) {
      for (String product : products()) {
        producer.send(new ProducerRecord<>(STOCK, product, PLENTY));
      }
      producer.flush();
    }
  }

  private static NewTopic topic(String name) {
    return new NewTopic(name, Settings.PARTITIONS, (short) 1);
  }

  private static List<String> products() {
    return List.of(Settings.text("PRODUCTS", "JUMPERS,UNDERPANTS").split(","));
  }
}
