"""Side effects outside Kafka: scheduling, retries, circuit breakers, acknowledgement."""
