#!lua flags=allow-oom
-- purge_tenant: end a tenant: delete its policies and levers, and keep it switched off until every pod knows
-- KEYS
--   head      <schema>:{p}:<tenant>:head      switched off, without levers, with a TTL
--   policies  <schema>:{p}:<tenant>:policies  deleted
-- ARGV
--   random    4 fresh random bytes
--   keep_ms   how long the head stays: longer than a pod keeps a policy without reading it again
-- RETURNS
--   0 ended     the tenant's revision after
--   1 unknown   the tenant has no head; policies without one are deleted
-- GUARANTEES
--   From the next row of any pod on, the tenant gets no decision, and that row tells the pod that its policies are
--   gone. A policy that is written later makes it a tenant again, which is off until it is enabled. Runs when Redis
--   is out of memory.
--- @include revisions
redis.call('UNLINK', KEYS[2])
local revision = head_revision(KEYS[1])
if revision == 0 then return { 1 } end
redis.call('SET', KEYS[1], struct.pack('>BI4c4BH', 1, revision + 1, ARGV[1], 1, 0), 'PX', ARGV[2])
return { 0, revision + 1 }
