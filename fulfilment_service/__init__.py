"""The fulfilment service: an order is shipped once everything that has to happen before has happened."""
