"""NATS: the permanent connection (`Bus`) and everything that uses it.

Receiving: `DecideEndpoint`, `PullLoop`, `serve`, `announce.listen`, `workers`. Sending: `StreamPublisher`,
`Bus.publish`, `announce.announce`. Streams and consumers: `fleet`, `Streams`, `StreamKeeper`. Only this package and
`router.worker` import nats-py; handlers are plain callables that do not use it.
"""
