-- The heads of the tenants of this call.
--- @include head
local NO_STAMP = '\0\0\0\0\0\0\0\0'
local heads

-- The head behind KEYS[k], read once a call: its stamp, whether the tenant is off, and the operators' levers (provider
-- entry -> verdict; nil when there are none).
local function head_at(k)
  local found = heads[k]
  if found then return found end
  local raw = call('GET', KEYS[k])
  if not raw then
    found = { stamp = NO_STAMP }
  else
    local stamp, off, n = read_head(raw)
    found = { stamp = stamp, off = off == 1 }
    if n > 0 then
      found.levers = {}
      for pos = HEAD_SIZE + 1, HEAD_SIZE + n * LEVER_SIZE, LEVER_SIZE do
        local entry, verdict = unpack('>c8B', raw, pos)
        found.levers[entry] = verdict
      end
    end
  end
  heads[k] = found
  return found
end
