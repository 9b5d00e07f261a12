"""Fulfilment service: prerequisite gate that ships an order once all prerequisites are met."""
