"""All rows, in the order of the table."""

from itertools import chain

from tests.survive.row import Row
from tests.survive.rows import (
    api,
    clocks,
    clusters,
    disks,
    files,
    floods,
    nats,
    nats_servers,
    nats_tls,
    permissions,
    pods,
    redis,
    secrets,
    sentinels,
)

ROWS: tuple[Row, ...] = tuple(
    chain(
        redis.ROWS,
        sentinels.ROWS,
        clusters.ROWS,
        clocks.ROWS,
        disks.ROWS,
        nats.ROWS,
        nats_servers.ROWS,
        nats_tls.ROWS,
        permissions.ROWS,
        pods.ROWS,
        files.ROWS,
        secrets.ROWS,
        floods.ROWS,
        api.ROWS,
    )
)
