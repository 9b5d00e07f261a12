package orders;

import java.util.Properties;
import org.apache.kafka.streams.StreamsConfig;

/**
 * Settings from the environment. The defaults are what was fastest with few cores, so that a comparison is fair.
 *
 * <p>KAFKA_BOOTSTRAP_SERVERS, HTTP_PORT, STATE_DIR, TOPIC_PREFIX, SERVICES, GUARANTEE (exactly_once_v2 or
 * at_least_once), COMMIT_MS, POLL_MS, LINGER_MS, POST_LINGER_MS, THREADS, CACHE_BYTES.
 */
final class Settings {
  static final String PREFIX = text("TOPIC_PREFIX", "");
  static final int PARTITIONS = (int) number("PARTITIONS", 4);

  private Settings() {}

  static String text(String name, String otherwise) {
    String value = System.getenv(name);
    return value == null || value.isEmpty() ? otherwise : value;
  }

  static long number(String name, long otherwise) {
    return Long.parseLong(text(name, Long.toString(otherwise)));
  }

  static Properties connection() {
    Properties properties = new Properties();
    properties.put("bootstrap.servers", text("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"));
    return properties;
  }

  /** Producer of the orders that are posted. It is acknowledged by all replicas in sync, and loses nothing. */
  static Properties producer() {
    Properties properties = connection();
    properties.put("acks", "all");
    properties.put("linger.ms", text("POST_LINGER_MS", "0"));
    properties.put("batch.size", "65536");
    return properties;
  }

  static Properties streams(String applicationId) {
    boolean exactlyOnce = isExactlyOnce();
    Properties properties = connection();
    properties.put(StreamsConfig.APPLICATION_ID_CONFIG, applicationId);
    properties.put(StreamsConfig.STATE_DIR_CONFIG, text("STATE_DIR", "state"));
    properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, text("GUARANTEE", StreamsConfig.EXACTLY_ONCE_V2));
    // Exactly once, downstream sees a record only once it is committed, and each order needs three commits in a row.
    properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, text("COMMIT_MS", exactlyOnce ? "5" : "1000"));
    // While a poll waits, nothing is committed: the default of 100 ms would be added to every commit.
    properties.put(StreamsConfig.POLL_MS_CONFIG, text("POLL_MS", exactlyOnce ? "2" : "20"));
    properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, text("THREADS", exactlyOnce ? "2" : "1"));
    properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, text("CACHE_BYTES", "33554432"));
    properties.put(StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG, StreamsConfig.OPTIMIZE);
    properties.put(StreamsConfig.MAX_TASK_IDLE_MS_CONFIG, "-1");
    properties.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, "-1");
    properties.put(StreamsConfig.producerPrefix("linger.ms"), text("LINGER_MS", "0"));
    properties.put(StreamsConfig.producerPrefix("batch.size"), "65536");
    properties.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
    properties.put(StreamsConfig.consumerPrefix("max.poll.records"), "2000");
    return properties;
  }

  private static boolean isExactlyOnce() {
    return StreamsConfig.EXACTLY_ONCE_V2.equals(text("GUARANTEE", StreamsConfig.EXACTLY_ONCE_V2));
  }
}
