"""NATS: one connection kept for ever (`Bus`), and what the router does over it.

In: `DecideDoor`, `PullLoop`, `serve`, `announce.listen`, `workers.listen`. Out: `StreamPublisher`, `Bus.publish`,
`announce.announce`. Around: `fleet`, `Streams`, `StreamKeeper`. Only this room (and the example worker) knows nats-py;
handlers are plain callables and know nothing of it.
"""
