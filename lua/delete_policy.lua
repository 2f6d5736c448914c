#!lua
-- delete_policy: remove one policy of a tenant, by compare-and-set, and record who did it
-- KEYS
--   head      <schema>:{p}:<tenant>:head      revision and stamp; stays when the last policy is deleted
--   policies  <schema>:{p}:<tenant>:policies  one field is removed
--   audit     <schema>:{p}:<tenant>:audit     one record
--   history   <schema>:{p}:<tenant>:h:<policy>  one entry more, without a document; from now on it has a TTL
-- ARGV
--   policy    id of the policy
--   expect    -1: any; n: only when its revision is n
--   random    4 fresh random bytes
--   action    number of the audit action
--   features  msgpack of the record (domain.audit.records.ActFeatures)
--   keep_ms   minimum life of the audit log, ms
--   why       msgpack of who deleted it, for the history
--   entries   entries that the history keeps
--   history_ms  how long the history of a deleted policy is kept
-- RETURNS
--   0 deleted     the tenant's new revision
--   1 conflict    the policy's revision now, 0 when absent; nothing was written
-- GUARANTEES
--   Revision and stamp change with the policy, and the record is written with it, in one act. Revisions grow over
--   deletes, so that none ever names two contents. The head has no TTL.
--- @include clock
--- @include revisions
--- @include admin_record
--- @include policy_history
local id, expect, random = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local action, features, keep_ms = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local why, entries, history_ms = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local revision, rest = head_revision(KEYS[1])
local current, before = policy_revision(KEYS[2], id)
if current == 0 or (expect >= 0 and expect ~= current) then return { 1, current } end
local newest = newest_entry(KEYS[4])
local now, now_us = server_time()
admin_record(KEYS[3], action, now, now_us, revision + 1, current, features, keep_ms)
remember(KEYS[4], newest, before, entries, revision + 1, string.rep('\0', 8), now, why, '')
redis.call('PEXPIRE', KEYS[4], string.format('%.0f', history_ms))
redis.call('HDEL', KEYS[2], id)
redis.call('SET', KEYS[1], struct.pack('>BI4c4', 1, revision + 1, random) .. rest)
return { 0, revision + 1 }
