"""All rows, in the order of the table."""

from itertools import chain

from tests.survive.row import Row
from tests.survive.rows import clocks, disks, files, floods, nats, pods, redis

ROWS: tuple[Row, ...] = tuple(chain(redis.ROWS, clocks.ROWS, disks.ROWS, nats.ROWS, pods.ROWS, files.ROWS, floods.ROWS))
