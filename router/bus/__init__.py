"""NATS: connect, streams, consumers, publish. The only room that knows nats."""
