"""Replay: records of the history are sent again, to the topic of their stage, byte for byte."""
