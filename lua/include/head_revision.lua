-- The head and the policies of a tenant, as far as writers of policies need them.
--
--   head    B format = 1, I4 revision, c4 random (the two are the stamp), then the switch and levers, which stay as they are
--   policy  B format = 1, I4 revision, c8 hash, d created, document

-- The tenant's revision (0 before its first policy), and what follows the stamp.
local function head_revision(key)
  local raw = redis.call('GET', key)
  if not raw then return 0, '\0\0\0' end
  local format, revision = struct.unpack('>BI4', raw)
  if format ~= 1 then error('head format ' .. format) end
  return revision, raw:sub(10)
end

-- The revision of one policy and what is stored of it; 0 and false when it is absent.
local function policy_revision(key, id)
  local raw = redis.call('HGET', key, id)
  if not raw then return 0, false end
  local format, revision = struct.unpack('>BI4', raw)
  if format ~= 1 then error('policy format ' .. format) end
  return revision, raw
end
