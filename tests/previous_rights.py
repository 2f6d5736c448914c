"""What pods of version 0.1.0 were allowed: read from its code, and never changed. A release adds its own file."""

VERSION = "0.1.0"

REDIS = (
    "resetkeys ~r1:* ~r1{* ~t*:* ~t*{* resetchannels -@all +config|get +dbsize +del +eval +evalsha +exists +fcall "
    "+function|delete +function|list +function|load +get +getrange +hdel +hexists +hget +hgetall +hincrby +hkeys +hlen "
    "+hmget +hrandfield +hscan +hset +hsetnx +incr +info +lindex +lpush +lrange +ltrim +memory|usage +persist +pexpire "
    "+ping +pttl +scan +set +time +unlink +wait +xadd +xinfo|stream +xlen +xrange +xrevrange +xtrim +zadd +zcard "
    "+zcount +zrange +zrangebyscore +zrem +zremrangebyscore +client|setinfo"
)

NATS_PUBLISH = (
    "_INBOX.>",
    "_R_.>",
    "_GR_.>",
    "caf.exec.>",
    "beamline.usage.v1.metered",
    "beamline.alert.v1.*",
    "beamline.ext.>",
    "beamline.router.internal.v1.policy_changed",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.STREAM.CREATE.*",
    "$JS.API.CONSUMER.INFO.*.*",
    "$JS.API.CONSUMER.DURABLE.CREATE.*.*",
    "$JS.API.CONSUMER.CREATE.*",
    "$JS.API.CONSUMER.DELETE.*.*",
    "$JS.API.CONSUMER.MSG.NEXT.*.*",
    "$JS.ACK.>",
)

NATS_SUBSCRIBE = (
    "beamline.router.v1.decide",
    "beamline.router.v1.decide.>",
    "beamline.router.v1.get_decision",
    "beamline.router.v1.status.backpressure",
    "beamline.router.v1.admin.*",
    "beamline.router.internal.v1.policy_changed",
    "caf.status.heartbeat.v1",
    "caf.deadletter.v1",
    "_INBOX.>",
)
