#!lua flags=allow-oom
-- count_strike: count that a message of a stream could not be handled, for all pods together
-- KEYS
--   strikes   <schema>:{p}:~:strikes:<message>   how often
-- ARGV
--   keep_ms   how long that is remembered after the last one
-- RETURNS
--   0 counted   then the count
-- GUARANTEES
--   The key has a TTL with the first count. Runs when Redis is out of memory, because giving up on a message frees it.
local count = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return { 0, count }
