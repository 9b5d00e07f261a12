package orders;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.nio.ByteBuffer;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Serde;

/** Formats of keys and values: JSON in topics that others read, compact bytes in the stores of a processor. */
final class Serdes {
  static final ObjectMapper JSON =
      new ObjectMapper().disable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES);
  static final Serde<String> KEY = org.apache.kafka.common.serialization.Serdes.String();
  static final Serde<Long> COUNT = org.apache.kafka.common.serialization.Serdes.Long();
  static final Serde<Order> ORDER = json(Order.class);
  static final Serde<Verdict> VERDICT = json(Verdict.class);
  static final Serde<Session> SESSION =
      org.apache.kafka.common.serialization.Serdes.serdeFrom(
          (topic, s) -> s == null ? null : ByteBuffer.allocate(16).putLong(s.lastMs()).putDouble(s.total()).array(),
          (topic, bytes) -> {
            if (bytes == null) {
              return null;
            }
            ByteBuffer buffer = ByteBuffer.wrap(bytes);
            return new Session(buffer.getLong(), buffer.getDouble());
          });
  static final Serde<Pending> PENDING = json(Pending.class);

  private Serdes() {}

  private static <T> Serde<T> json(Class<T> type) {
    ObjectWriter writer = JSON.writerFor(type);
    ObjectReader reader = JSON.readerFor(type);
    return org.apache.kafka.common.serialization.Serdes.serdeFrom(
        (topic, value) -> {
          try {
            return value == null ? null : writer.writeValueAsBytes(value);
          } catch (JsonProcessingException e) {
            throw new SerializationException(e);
          }
        },
        (topic, bytes) -> {
          try {
            return bytes == null ? null : reader.readValue(bytes);
          } catch (IOException e) {
            throw new SerializationException(e);
          }
        });
  }
}
