-- Writes back every changed state of the call, also when rows failed.
--
-- Charges of limits whose buckets have not rolled are written in place, from the first sum to the last current bucket.
-- The key's TTL stays right: it lasts until the newest bucket has left, whatever is charged there.
--- @include flush

-- A server may forbid SETRANGE, which version 0.1.0 did not use: then states are written whole, and it is tried again
-- after this time.
local RANGE_RETRY_MS = 60000
local ranges_from = 0
local RANGE_FROM = tostring(2 + 8 + 4 + 8)
local range_formats = {}

-- Writes sums and current buckets in place; returns whether that was possible.
local function write_charges(st, now)
  if st.dirty or st.rolled or now < ranges_from then return false end
  local n = st.n
  local format = range_formats[n]
  if not format then
    format = '>dd' .. string.rep('c96c8I4ddd', n - 1)
    range_formats[n] = format
  end
  local range = pack(format, spread(st.v, 1 + SUM, (n - 1) * STRIDE + 1 + CURRENT))
  if type(redis.pcall('SETRANGE', st.key, RANGE_FROM, range)) == 'number' then return true end
  ranges_from = now + RANGE_RETRY_MS
  return false
end

local function write_state(st, now)
  if not write_charges(st, now) then flush_state(st, now) end
end

-- Writes each state by itself: one that cannot be written must not cost the other owners their counts.
local function flush_states(now)
  for _, st in pairs(states) do
    if st.charged or st.dirty then
      local ok, fault = pcall(write_state, st, now)
      if not ok then
        fault = type(fault) == 'table' and fault.err or tostring(fault)
        redis.log(redis.LOG_WARNING, 'router: a state was not written: ' .. fault)
      end
    end
  end
end
