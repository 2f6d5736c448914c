"""Which answers count as failed, limited or refused in a query."""

FAILED = 'outcome=~"unavailable|service_overloaded|internal"'
LIMITED = 'outcome=~"rate_limit_exceeded|quota_exceeded"'
OVERLOADED = 'cause!~"tenant|loading"'
REFUSED = 'outcome!~"decided|replayed|degraded"'
