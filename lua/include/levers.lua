-- The switch and the levers of a tenant, for the acts that change them. Such an act draws the stamp's random half
-- again, so that every pod reads the head again with its next row. It keeps the revision, which belongs to the
-- policies.
--- @include head

-- The first 5 bytes of the head (format and revision), the switch, and the levers as strings of 9 bytes; nil when the
-- tenant has no head.
local function head_open(key)
  local raw = redis.call('GET', key)
  if not raw then return nil end
  local _, off, n = read_head(raw)
  if #raw ~= HEAD_SIZE + LEVER_SIZE * n then error('levers of a head') end
  local levers = {}
  for i = 1, n do levers[i] = raw:sub(HEAD_SIZE + LEVER_SIZE * (i - 1) + 1, HEAD_SIZE + LEVER_SIZE * i) end
  return raw:sub(1, 5), off, levers
end

-- The index of a lever; nil when it is not pulled.
local function lever_at(levers, lever)
  for i = 1, #levers do
    if levers[i] == lever then return i end
  end
end

local function head_close(key, revision, random, off, levers)
  redis.call('SET', key, revision .. random .. struct.pack('>BH', off, #levers) .. table.concat(levers))
end
