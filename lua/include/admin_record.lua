-- The record of an admin act, in the log of the tenant whose key this is.
--
--   field r   B format = 1, B action, d Redis ms, d microseconds of it, I4 tenant revision after, I4 policy revision
--             before (both 0 where the act writes no policy), msgpack of domain.audit.records.ActFeatures
--
-- It trims nothing: the act may come from a machine with other settings than the pods'. For the same reason the log's
-- life time is only ever made longer.
local function admin_record(key, action, now, now_us, revision, before, features, keep_ms)
  redis.call('XADD', key, '*', 'r', struct.pack('>BBddI4I4', 1, action, now, now_us, revision, before) .. features)
  if redis.call('PTTL', key) < keep_ms then redis.call('PEXPIRE', key, string.format('%.0f', keep_ms)) end
end
