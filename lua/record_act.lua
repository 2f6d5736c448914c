#!lua flags=allow-oom
-- record_act: record an act that belongs to no tenant's log: use of a role, a change of the gate, a purge
-- KEYS
--   acts      <schema>:{p}:~:audit            one record
-- ARGV
--   action    number of the audit action
--   features  msgpack of the record (domain.audit.records.ActFeatures)
--   max_records  records kept
--   keep_ms   minimum life of the log, ms
-- RETURNS
--   0 recorded    nothing more
-- GUARANTEES
--   Bounded by MAXLEN and TTL: one log for the fleet, since an act may name no tenant, or one that does not exist.
--- @include clock
--- @include admin_record
local now, now_us = server_time()
admin_record(KEYS[1], tonumber(ARGV[1]), now, now_us, 0, 0, ARGV[2], tonumber(ARGV[4]))
redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[3])
return { 0 }
