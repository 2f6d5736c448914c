#!lua flags=allow-oom
-- reset_breaker: close the breaker of a tenant's provider, forced or not, and record who did it
-- KEYS
--   head      <schema>:{p}:<tenant>:head      without the lever "forced open"; revision, switch, other levers stay
--   state     <schema>:{p}:<tenant>:s         without the breaker's entry; limits and other breakers stay
--   audit     <schema>:{p}:<tenant>:audit     one record, unless nothing changed
-- ARGV
--   provider  8 bytes of the provider's entry
--   random    4 bytes, the stamp's random half
--   action    number of the audit action
--   features  msgpack of the record (domain.audit.records.ActFeatures)
--   keep_ms   minimum life of the audit log, ms
-- RETURNS
--   0 changed     nothing more
--   1 unchanged   it was closed, with no failures counted; nothing was written
--   2 unknown     the tenant has no head; nothing was written
-- GUARANTEES
--   In force with the next row of any pod. What the breaker had counted is forgotten, and running probes no
--   longer count. A repeated call changes nothing. The state keeps a TTL: the longest window or timeout left in it.
--- @include clock
--- @include levers
--- @include admin_record
--- @include state
--- @include breaker
--- @include flush
local FORCED = '\7'
local provider = ARGV[1]
local revision, off, levers = head_open(KEYS[1])
if not revision then return { 2 } end
local at = lever_at(levers, provider .. FORCED)
local st = state_at(2)
local there = st.breakers and breaker_of(st, provider)
if not at and not there then return { 1 } end
local now, now_us = server_time()
admin_record(KEYS[3], tonumber(ARGV[3]), now, now_us, 0, 0, ARGV[4], tonumber(ARGV[5]))
if at then
  table.remove(levers, at)
  head_close(KEYS[1], revision, ARGV[2], off, levers)
end
if there then
  st.breakers[provider] = nil
  flush_state(st, now)
end
return { 0 }
