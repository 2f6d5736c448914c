#!lua flags=allow-oom
-- claim: take what is due in some partitions for a while, so that only one pod works on each member
-- KEYS
--   due             <schema>:{p}:~:due                  tasks …
--   retain          <schema>:{p}:~:retain               … or tenants whose audit log is to be trimmed
-- ARGV
--   lease_ms        how long the claim keeps other pods away
--   most            members to take, over all KEYS
-- RETURNS
--   0 claimed       then the Redis time in ms, how many KEYS are damaged and the index of each, then for each member:
--                   the index of its KEY, the member
-- GUARANTEES
--   A KEY of a wrong type is reported and left as it is; the other partitions go on.
--   A claimed member is due again when its claim ends: a pod that dies delays it by lease_ms at most.
--   No scan over tenants: the set holds what is due, in order.
--- @include clock
local now = server_time()
local lease_ms, left = tonumber(ARGV[1]), tonumber(ARGV[2])
local reply, taken = { 0, now, 0 }, {}
for k = 1, #KEYS do
  if left <= 0 then break end
  local due = redis.pcall('ZRANGEBYSCORE', KEYS[k], '-inf', now, 'LIMIT', 0, left)
  if due.err then
    reply[3] = reply[3] + 1
    reply[#reply + 1] = k
    due = {}
  end
  for i = 1, #due do
    redis.call('ZADD', KEYS[k], now + lease_ms, due[i])
    taken[#taken + 1], taken[#taken + 2] = k, due[i]
  end
  left = left - #due
end
for i = 1, #taken do reply[#reply + 1] = taken[i] end
return reply
