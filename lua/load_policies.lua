#!lua flags=no-writes
-- load_policies: read all policies of a tenant at one moment
-- KEYS
--   head      <schema>:{p}:<tenant>:head      read only
--   policies  <schema>:{p}:<tenant>:policies  read only
-- ARGV
-- RETURNS
--   0 loaded      the head (empty: there is none), then id and stored value of each policy
-- GUARANTEES
--   Head and policies belong together. Nothing is written, so unknown tenants leave no keys.
local reply = { 0, redis.call('GET', KEYS[1]) or '' }
local policies = redis.call('HGETALL', KEYS[2])
for i = 1, #policies do reply[i + 2] = policies[i] end
return reply
