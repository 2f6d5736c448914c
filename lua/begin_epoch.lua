#!lua flags=allow-oom
-- begin_epoch: join the open episode of an alert, or open the next one
-- KEYS
--   epochs    <schema>:epochs    one field a condition and scope: epoch, 1 open or 0 over, ms of the last join
-- ARGV
--   scope     condition and scope of the alert
--   stale_ms  an open episode without a join for so long counts as over
-- RETURNS
--   0 begun   the episode's epoch
-- GUARANTEES
--   All pods that see the same episode get the same epoch; the next episode gets a greater one. Bounded: conditions
--   are a closed list, and scopes are tenants, providers and streams.
--- @include clock
local now = server_time()
local there = redis.call('HGET', KEYS[1], ARGV[1])
local epoch, open = 0, false
if there then
  local e, o, at = there:match('^(%d+) (%d) (%d+)$')
  epoch = tonumber(e)
  -- A join that lies ahead dates from before the clock was set back.
  local since, stale = now - tonumber(at), tonumber(ARGV[2])
  open = o == '1' and since < stale and since > -stale
end
if not open then epoch = epoch + 1 end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d 1 %.0f', epoch, now))
return { 0, epoch }
