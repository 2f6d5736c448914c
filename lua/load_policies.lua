#!lua flags=no-writes
-- load_policies: all policies of a tenant at one moment
-- KEYS
--   head      <schema>:{p}:<tenant>:head      read only
--   policies  <schema>:{p}:<tenant>:policies  read only
-- ARGV
-- RETURNS
--   0 loaded      the stamp (empty: there is no head), then id and stored value of each policy
-- GUARANTEES
--   Stamp and policies belong together. Nothing is written, so unknown tenants leave no keys.
local reply = { 0, '' }
local raw = redis.call('GET', KEYS[1])
if raw then
  if raw:byte(1) ~= 1 then error('head format ' .. raw:byte(1)) end
  reply[2] = raw:sub(2, 9)
end
local policies = redis.call('HGETALL', KEYS[2])
for i = 1, #policies do reply[i + 2] = policies[i] end
return reply
