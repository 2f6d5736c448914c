-- The switch and the levers of a tenant's head, for those who pull them. The stamp's random part is drawn anew, so that every
-- pod reads the head again with its next row; the revision stays: it is of the policies.
--
--   head   B format = 1, c8 stamp, B off, H levers, then each: c8 provider entry, B verdict (6 drained, 7 forced open)

-- Format and revision as they are, the switch, and the levers, 9 bytes each; nil when the tenant has no head.
local function head_open(key)
  local raw = redis.call('GET', key)
  if not raw then return nil end
  local format, _, off, n = struct.unpack('>Bc8BH', raw)
  if format ~= 1 then error('head of format ' .. format) end
  if #raw ~= 12 + 9 * n then error('levers of a head') end
  local levers = {}
  for i = 1, n do levers[i] = raw:sub(4 + 9 * i, 12 + 9 * i) end
  return raw:sub(1, 5), off, levers
end

-- Where a lever is; nil when it is not pulled.
local function lever_at(levers, lever)
  for i = 1, #levers do
    if levers[i] == lever then return i end
  end
end

local function head_close(key, revision, random, off, levers)
  redis.call('SET', key, revision .. random .. struct.pack('>BH', off, #levers) .. table.concat(levers))
end
