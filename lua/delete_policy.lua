#!lua
-- delete_policy: remove one policy of a tenant, by compare-and-set
-- KEYS
--   head      <schema>:{p}:<tenant>:head      revision and stamp; stays when the last policy goes
--   policies  <schema>:{p}:<tenant>:policies  one field less
-- ARGV
--   policy    id of the policy
--   expect    -1: whatever is there; n: only when its revision is n
--   random    4 fresh random bytes
-- RETURNS
--   0 deleted     the tenant's new revision
--   1 conflict    the policy's revision now, 0 when absent; nothing was written
-- GUARANTEES
--   Revision and stamp change with the policy, in one act. The revision grows over deletes, so no revision ever names two
--   contents. The head has no TTL.
--- @include head_revision
local id, expect, random = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local revision, rest = head_revision(KEYS[1])
local current = policy_revision(KEYS[2], id)
if current == 0 or (expect >= 0 and expect ~= current) then return { 1, current } end
redis.call('HDEL', KEYS[2], id)
redis.call('SET', KEYS[1], struct.pack('>BI4c4', 1, revision + 1, random) .. rest)
return { 0, revision + 1 }
