#!lua flags=allow-oom
-- claim: claim the due members of some partitions for a while, so that only one pod works on each
-- KEYS
--   due             <schema>:{p}:~:due                  tasks …
--   retain          <schema>:{p}:~:retain               … or tenants whose audit log is to be trimmed
-- ARGV
--   lease_ms        how long the claim keeps other pods away
--   max_members     members to claim, over all KEYS
--   ahead_ms        claim members that are due later than this, too: no delay is so long; 0: do not search
-- RETURNS
--   0 claimed       then the Redis time in ms, how many KEYS are damaged and the index of each, then for each member:
--                   the index of its KEY (below 0: it was due later than ahead_ms), the member
-- GUARANTEES
--   A KEY of a wrong type is reported and left as it is; the other partitions continue.
--   A claimed member is due again when its claim ends: a pod that dies delays it by lease_ms at most.
--   A member that is due too late was added before Redis' clock was set back: it would wait as long as that was ahead.
--   No scan over tenants: the set holds what is due, in order.
--- @include clock
local now = server_time()
local lease_ms, left, ahead_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local reply, taken = { 0, now, 0 }, {}

local function take(k, members, mark)
  for i = 1, #members do
    redis.call('ZADD', KEYS[k], now + lease_ms, members[i])
    taken[#taken + 1], taken[#taken + 2] = mark, members[i]
  end
  left = left - #members
end

for k = 1, #KEYS do
  if left <= 0 then break end
  local due = redis.pcall('ZRANGEBYSCORE', KEYS[k], '-inf', now, 'LIMIT', 0, left)
  if due.err then
    reply[3] = reply[3] + 1
    reply[#reply + 1] = k
  else
    take(k, due, k)
    if ahead_ms > 0 and left > 0 then
      local from = string.format('(%.0f', now + ahead_ms)
      take(k, redis.call('ZRANGEBYSCORE', KEYS[k], from, '+inf', 'LIMIT', 0, left), -k)
    end
  end
end
for i = 1, #taken do reply[#reply + 1] = taken[i] end
return reply
