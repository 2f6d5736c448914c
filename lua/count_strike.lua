#!lua flags=allow-oom
-- count_strike: count a failed delivery of a message, for all pods together
-- KEYS
--   strikes   <schema>:{p}:~:strikes:<message>   failed deliveries
-- ARGV
--   keep_ms   how long the count is remembered after the last failure
-- RETURNS
--   0 counted   then the count
-- GUARANTEES
--   The key has a TTL from the first count on. Runs when Redis is out of memory, because giving up on a message frees
--   it.
local count = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return { 0, count }
