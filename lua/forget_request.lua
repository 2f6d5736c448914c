#!lua flags=allow-oom
-- forget_request: forget the remembered answer of one request, and record who did it
-- KEYS
--   head      <schema>:{p}:<tenant>:head      read only: whether the tenant exists
--   idem      <schema>{p}<name>               deleted
--   audit     <schema>:{p}:<tenant>:audit     one record, unless nothing changed
-- ARGV
--   action    number of the audit action
--   features  msgpack of the record (domain.audit.records.ActFeatures)
--   keep_ms   minimum life of the audit log, ms
-- RETURNS
--   0 changed     nothing more
--   1 unchanged   no answer is remembered under this name; nothing was written
--   2 unknown     the tenant has no head; nothing was written
-- GUARANTEES
--   From now on the same request gets a new decision. What the forgotten decision holds stays: charges until their
--   window has passed, a dispatched task until its end. A repeated call changes nothing.
--- @include clock
--- @include admin_record
if redis.call('EXISTS', KEYS[1]) == 0 then return { 2 } end
if redis.call('EXISTS', KEYS[2]) == 0 then return { 1 } end
local now, now_us = server_time()
admin_record(KEYS[3], tonumber(ARGV[1]), now, now_us, 0, 0, ARGV[2], tonumber(ARGV[3]))
redis.call('UNLINK', KEYS[2])
return { 0 }
