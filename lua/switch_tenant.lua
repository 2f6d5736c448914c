#!lua flags=allow-oom
-- switch_tenant: switch a tenant off or on, and record who did it
-- KEYS
--   head      <schema>:{p}:<tenant>:head      the switch; revision and levers stay
--   audit     <schema>:{p}:<tenant>:audit     one record, unless nothing changed
-- ARGV
--   off       1: off, 0: on
--   random    4 bytes, the stamp's random half
--   action    number of the audit action
--   features  msgpack of the record (domain.audit.records.ActFeatures)
--   keep_ms   minimum life of the audit log, ms
-- RETURNS
--   0 changed     nothing more
--   1 unchanged   it was like that; nothing was written
--   2 unknown     the tenant has no head; nothing was written
-- GUARANTEES
--   In force with the next row of any pod, since every decide reads the head. A repeated call changes nothing. Runs
--   when Redis is out of memory, because the head does not grow. The head has no TTL.
--- @include clock
--- @include levers
--- @include admin_record
local off = tonumber(ARGV[1])
local revision, was, levers = head_open(KEYS[1])
if not revision then return { 2 } end
if was == off then return { 1 } end
local now, now_us = server_time()
admin_record(KEYS[2], tonumber(ARGV[3]), now, now_us, 0, 0, ARGV[4], tonumber(ARGV[5]))
head_close(KEYS[1], revision, ARGV[2], off, levers)
return { 0 }
