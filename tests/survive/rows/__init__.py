"""All rows, in the order of the table."""

from itertools import chain

from tests.survive.row import Row
from tests.survive.rows import files, floods, nats, pods, redis

ROWS: tuple[Row, ...] = tuple(chain(redis.ROWS, nats.ROWS, pods.ROWS, files.ROWS, floods.ROWS))
