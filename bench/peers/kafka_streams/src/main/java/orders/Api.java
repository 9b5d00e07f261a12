package orders;

import io.vertx.core.AbstractVerticle;
import io.vertx.core.Context;
import io.vertx.core.Promise;
import io.vertx.core.buffer.Buffer;
import io.vertx.core.http.HttpMethod;
import io.vertx.core.http.HttpServerOptions;
import io.vertx.core.http.HttpServerRequest;
import io.vertx.core.http.HttpServerResponse;
import java.io.IOException;
import java.util.UUID;
import java.util.function.Consumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.streams.errors.InvalidStateStoreException;

/**
 * HTTP on the event loop of Netty: no thread waits for Kafka, and nobody polls.
 *
 * <p>POST /v1/orders, with {@code Prefer: wait} for the outcome in one request; GET /v1/orders/{id}; GET
 * /v1/orders/{id}/validated?timeout=MS.
 */
final class Api extends AbstractVerticle {
  private static final String ORDERS = "/v1/orders";
  private static final String VALIDATED = "/validated";
  private static final long DEFAULT_WAIT_MS = 20_000;

  private final View view;
  private final Waiters waiters;
  private final KafkaProducer<String, Order> producer;

  Api(View view, Waiters waiters, KafkaProducer<String, Order> producer) {
    this.view = view;
    this.waiters = waiters;
    this.producer = producer;
  }

  @Override
  public void start(Promise<Void> started) {
    HttpServerOptions options =
        new HttpServerOptions().setHost("127.0.0.1").setPort((int) Settings.number("HTTP_PORT", 8080)).setTcpNoDelay(true).setAcceptBacklog(4096);
    vertx.createHttpServer(options).requestHandler(this::handle).listen().<Void>mapEmpty().onComplete(started);
  }

  private void handle(HttpServerRequest request) {
    String path = request.path();
    if (request.method() == HttpMethod.POST && path.equals(ORDERS)) {
      request.body().onSuccess(body -> post(request, body));
    } else if (request.method() == HttpMethod.GET && path.startsWith(ORDERS + "/")) {
      if (path.endsWith(VALIDATED)) {
        awaitOutcome(request, path.substring(ORDERS.length() + 1, path.length() - VALIDATED.length()));
      } else {
        get(request, path.substring(ORDERS.length() + 1));
      }
    } else {
      answer(request.response(), 404, null);
    }
  }

  private void post(HttpServerRequest request, Buffer body) {
    Order order;
    try {
      Order posted = Serdes.JSON.readValue(body.getBytes(), Order.class);
      String id = posted.id() == null ? UUID.randomUUID().toString() : posted.id();
      order = new Order(id, posted.customerId(), Order.CREATED, posted.product(), posted.quantity(), posted.price());
    } catch (IOException e) {
      answer(request.response(), 400, null);
      return;
    }
    Context loop = context;
    String prefer = request.getHeader("Prefer");
    boolean waits = prefer != null && prefer.startsWith("wait");
    if (waits) {
      await(request.response(), order.id(), DEFAULT_WAIT_MS, 201);
    }
    producer.send(
        new ProducerRecord<>(Topics.ORDERS, order.id(), order),
        (metadata, error) -> {
          if (error != null) {
            loop.runOnContext(none -> answer(request.response(), 503, null));
          } else if (!waits) {
            loop.runOnContext(none -> answer(request.response(), 201, order));
          }
        });
  }

  private void get(HttpServerRequest request, String id) {
    try {
      Order order = view.get(id);
      answer(request.response(), order == null ? 404 : 200, order);
    } catch (InvalidStateStoreException notAssigned) {
      answer(request.response(), 503, null);
    }
  }

  private void awaitOutcome(HttpServerRequest request, String id) {
    String timeout = request.getParam("timeout");
    long waitMs;
    try {
      waitMs = timeout == null ? DEFAULT_WAIT_MS : Math.max(1, Long.parseLong(timeout));
    } catch (NumberFormatException e) {
      answer(request.response(), 400, null);
      return;
    }
    Consumer<Order> waiter = await(request.response(), id, waitMs, 200);
    try { // after the waiter was added: an outcome between the two is not missed
      Order now = view.get(id);
      if (now != null && now.isDecided()) {
        waiter.accept(now);
      }
    } catch (InvalidStateStoreException notAssigned) {
      // a rebalance: the waiter is told once the partition is processed
    }
  }

  /** Answers with the outcome once it is known, or 504 after a time. */
  private Consumer<Order> await(HttpServerResponse response, String id, long waitMs, int status) {
    Waiting waiter = new Waiting(response, id, status);
    waiter.timer = vertx.setTimer(waitMs, late -> waiter.end(504, null));
    response.closeHandler(closed -> waiters.remove(id, waiter));
    waiters.add(id, waiter);
    return waiter;
  }

  private final class Waiting implements Consumer<Order> {
    private final HttpServerResponse response;
    private final String id;
    private final int status;
    private long timer;

    Waiting(HttpServerResponse response, String id, int status) {
      this.response = response;
      this.id = id;
      this.status = status;
    }

    /** May be called by any thread. */
    @Override
    public void accept(Order order) {
      context.runOnContext(none -> end(status, order));
    }

    private void end(int code, Order order) {
      vertx.cancelTimer(timer);
      waiters.remove(id, this);
      answer(response, code, order);
    }
  }

  private static void answer(HttpServerResponse response, int status, Order order) {
    if (response.ended() || response.closed()) {
      return;
    }
    response.setStatusCode(status);
    if (order == null) {
      response.end();
    } else {
      response.putHeader("Content-Type", "application/json");
      response.end(Buffer.buffer(Serdes.ORDER.serializer().serialize(Topics.ORDERS, order)));
    }
  }
}
