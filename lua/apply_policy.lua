#!lua
-- apply_policy: write one policy of a tenant, by compare-and-set, and record who did it
-- KEYS
--   head      <schema>:{p}:<tenant>:head      revision and stamp; created when absent, switch and levers stay
--   policies  <schema>:{p}:<tenant>:policies  one field is added or changed
--   audit     <schema>:{p}:<tenant>:audit     one record
--   history   <schema>:{p}:<tenant>:h:<policy>  one entry more; the oldest are removed
-- ARGV
--   policy    id of the policy
--   expect    -1: any; 0: only when absent; n: only when its revision is n
--   hash      8 bytes of the document's hash
--   random    4 fresh random bytes
--   max_policies  maximum number of a tenant's policies
--   document  canonical JSON
--   action    number of the audit action
--   features  msgpack of the record (domain.audit.records.ActFeatures)
--   keep_ms   minimum life of the audit log, ms
--   tenant    -1: any; n: only when the tenant's revision is n
--   why       msgpack of who wrote it and why, for the history
--   entries   entries that the history keeps
-- RETURNS
--   0 applied     the tenant's new revision, which is the policy's too
--   1 conflict    the policy's revision now, 0 when absent; nothing was written
--   2 full        how many policies the tenant has; nothing was written
--   3 moved       the tenant's revision now; nothing was written
-- GUARANTEES
--   Revision and stamp change with the policy, and the record is written with it, in one act. Head and policies have no
--   TTL, because policies are configuration; their number and size are bounded. For the stored format of a policy see
--   include/revisions.lua.
--- @include clock
--- @include revisions
--- @include admin_record
--- @include policy_history
local id, expect, hash, random = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local max_policies, document = tonumber(ARGV[5]), ARGV[6]
local action, features, keep_ms = tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[9])
local tenant, why, entries = tonumber(ARGV[10]), ARGV[11], tonumber(ARGV[12])
local revision, rest = head_revision(KEYS[1])
local current, before = policy_revision(KEYS[2], id)
if expect >= 0 and expect ~= current then return { 1, current } end
if tenant >= 0 and tenant ~= revision then return { 3, revision } end
if current == 0 then
  local count = redis.call('HLEN', KEYS[2])
  if count >= max_policies then return { 2, count } end
end
local newest = newest_entry(KEYS[4])
local now, now_us = server_time()
-- The record comes first: of all these writes it is the only one that may fail (on a key of a wrong type).
admin_record(KEYS[3], action, now, now_us, revision + 1, current, features, keep_ms)
remember(KEYS[4], newest, before, entries, revision + 1, hash, now, why, document)
redis.call('PERSIST', KEYS[4])
redis.call('HSET', KEYS[2], id, struct.pack('>BI4c8d', 1, revision + 1, hash, now) .. document)
redis.call('SET', KEYS[1], struct.pack('>BI4c4', 1, revision + 1, random) .. rest)
return { 0, revision + 1 }
