package orders;

import io.vertx.core.Vertx;
import io.vertx.core.VertxOptions;
import java.time.Duration;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;

/** Starts the services of SERVICES, by default all five, as one Kafka Streams application. */
public final class Main {
  private static final String ALL = "orders,details,fraud,inventory,aggregator";

  private Main() {}

  public static void main(String[] arguments) throws Exception {
    Set<String> names = new TreeSet<>(Set.of(Settings.text("SERVICES", ALL).split(",")));
    Topics.create();
    Waiters waiters = new Waiters();
    Properties properties = Settings.streams(Settings.PREFIX + String.join("-", names));
    KafkaStreams streams = new KafkaStreams(new Services(names, waiters).builder().build(properties), properties);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(5))));
    streams.start();
    if (names.contains("orders")) {
      var producer = new KafkaProducer<>(Settings.producer(), new StringSerializer(), Serdes.ORDER.serializer());
      Vertx vertx = Vertx.vertx(new VertxOptions().setEventLoopPoolSize(1));
      vertx.deployVerticle(new Api(new View(streams), waiters, producer)).toCompletionStage().toCompletableFuture().get();
    }
  }
}
