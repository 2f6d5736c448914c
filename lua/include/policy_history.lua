-- The history of a policy: a list, newest first. The newest entry is the policy as it is now; an entry without a
-- document is a delete.
--
--   entry  B format = 1, I4 tenant revision, c8 hash, d written (Redis ms), I2 length, msgpack of who wrote it and why,
--          document

-- The newest entry. Call it before anything is written, so that a key of a wrong type fails the act as a whole.
local function newest_entry(key) return redis.call('LINDEX', key, 0) end

-- Adds an entry and keeps the newest `most`. `before` is the stored policy that is overwritten (false: there is
-- none). It gets an entry too when it has none: a pod of an earlier version wrote it.
local function remember(key, newest, before, most, revision, hash, now, why, document)
  if before and (not newest or newest:sub(2, 5) ~= before:sub(2, 5)) then
    redis.call('LPUSH', key, before:sub(1, 21) .. '\0\0' .. before:sub(22))
  end
  redis.call('LPUSH', key, struct.pack('>BI4c8dI2', 1, revision, hash, now, #why) .. why .. document)
  redis.call('LTRIM', key, 0, most - 1)
end
