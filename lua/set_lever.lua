#!lua flags=allow-oom
-- set_lever: pull one lever of a tenant's provider, or release it, and record who did it
-- KEYS
--   head      <schema>:{p}:<tenant>:head      levers; revision and switch stay
--   audit     <schema>:{p}:<tenant>:audit     one record, unless nothing changed
-- ARGV
--   lever     8 bytes of the provider's entry, one byte of verdict: 6 drained, 7 forced open
--   on        1: pull it, 0: release it
--   max_levers  maximum number of a tenant's levers
--   random    4 bytes, the stamp's random half
--   action    number of the audit action
--   features  msgpack of the record (domain.audit.records.ActFeatures)
--   keep_ms   minimum life of the audit log, ms
-- RETURNS
--   0 changed     nothing more
--   1 unchanged   the lever was in this position already; nothing was written
--   2 unknown     the tenant has no head; nothing was written
--   3 full        how many levers are pulled; nothing was written
-- GUARANTEES
--   In force with the next row of any pod, since every decide reads the head. A repeated call changes nothing. Runs
--   when Redis is out of memory, because the number of levers is bounded. The head has no TTL.
--- @include clock
--- @include levers
--- @include admin_record
local lever, on, max_levers = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3])
local revision, off, levers = head_open(KEYS[1])
if not revision then return { 2 } end
local at = lever_at(levers, lever)
if on == (at ~= nil) then return { 1 } end
if on and #levers >= max_levers then return { 3, #levers } end
local now, now_us = server_time()
admin_record(KEYS[2], tonumber(ARGV[5]), now, now_us, 0, 0, ARGV[6], tonumber(ARGV[7]))
if on then
  levers[#levers + 1] = lever
else
  table.remove(levers, at)
end
head_close(KEYS[1], revision, ARGV[4], off, levers)
return { 0 }
