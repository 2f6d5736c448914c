"""All rows, in the order of the table."""

from itertools import chain

from tests.survive.row import Row
from tests.survive.rows import clocks, disks, files, floods, nats, permissions, pods, redis, sentinels

ROWS: tuple[Row, ...] = tuple(
    chain(
        redis.ROWS,
        sentinels.ROWS,
        clocks.ROWS,
        disks.ROWS,
        nats.ROWS,
        permissions.ROWS,
        pods.ROWS,
        files.ROWS,
        floods.ROWS,
    )
)
