-- Revisions of a tenant and of its policies, for the acts that change policies.
--
--   policy  B format = 1, I4 revision, c8 hash, d created (Redis ms), document
--- @include head

-- The tenant's revision (0 before its first policy), and what follows the stamp: switch and levers.
local function head_revision(key)
  local raw = redis.call('GET', key)
  if not raw then return 0, '\0\0\0' end
  return struct.unpack('>I4', (read_head(raw))), raw:sub(10)
end

-- The revision of one policy and its stored value; 0 and false when it is absent.
local function policy_revision(key, id)
  local raw = redis.call('HGET', key, id)
  if not raw then return 0, false end
  local format, revision = struct.unpack('>BI4', raw)
  if format ~= 1 then error('policy format ' .. format) end
  return revision, raw
end
