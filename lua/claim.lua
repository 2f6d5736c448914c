#!lua flags=allow-oom
-- claim: take what is due in some partitions for a while, so that one pod looks at each
-- KEYS
--   due             <schema>:{p}:~:due                  tasks …
--   retain          <schema>:{p}:~:retain               … or tenants whose audit log is to be looked at
-- ARGV
--   lease_ms        how long the claim keeps other pods away
--   most            members to take, over all KEYS
-- RETURNS
--   0 claimed       then the Redis time in ms, then for each member: index of its KEY, itself
-- GUARANTEES
--   A claimed member is due again when its claim runs out: a pod that dies holds nothing up for longer than lease_ms.
--   No scan over tenants: the set holds what is due, in order.
--- @include clock
local now = server_time()
local lease_ms, left = tonumber(ARGV[1]), tonumber(ARGV[2])
local reply = { 0, now }
for k = 1, #KEYS do
  if left <= 0 then break end
  local due = redis.call('ZRANGEBYSCORE', KEYS[k], '-inf', now, 'LIMIT', 0, left)
  for i = 1, #due do
    redis.call('ZADD', KEYS[k], now + lease_ms, due[i])
    reply[#reply + 1], reply[#reply + 2] = k, due[i]
  end
  left = left - #due
end
return reply
