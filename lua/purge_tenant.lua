#!lua flags=allow-oom
-- purge_tenant: end a tenant: its policies and levers go, and its head says "off" until no pod can know it any more
-- KEYS
--   head      <schema>:{p}:<tenant>:head      switched off, without levers, with a life time
--   policies  <schema>:{p}:<tenant>:policies  goes
-- ARGV
--   random    4 fresh random bytes
--   keep_ms   how long the head stays: longer than a pod keeps a policy that it does not hear of again
-- RETURNS
--   0 ended     the tenant's revision after
--   1 unknown   the tenant has no head; policies without one are gone
-- GUARANTEES
--   With the next row of any pod nothing new is decided for it, and the pod learns that there are no policies. A policy that
--   is written later makes it a tenant again, which is off until it is enabled. Runs when Redis is out of memory.
--- @include revisions
redis.call('UNLINK', KEYS[2])
local revision = head_revision(KEYS[1])
if revision == 0 then return { 1 } end
redis.call('SET', KEYS[1], struct.pack('>BI4c4BH', 1, revision + 1, ARGV[1], 1, 0), 'PX', ARGV[2])
return { 0, revision + 1 }
