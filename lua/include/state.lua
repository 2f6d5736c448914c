-- One packed string per owner: its sliding limits and (the tenant's) its breakers.
--
--   string  B format = 1, H entries, then per entry: c8 id, B kind, H length, body
--   limit   I4 window_ms, d bucket index, d sum of 12 buckets, d current bucket, 12 d ring (slot = index % 12)
--   breaker see include/breaker.lua
--
-- An entry is found by its id, never by position. One that no row names is kept until `entry_end`. The current bucket's
-- slot in the ring is stale: `cur` has it. Buckets are 1/11 of the window wide, the oldest counted whole, so that no
-- window of length W ever holds more than the sum of 12.
local KIND_SLIDING, KIND_BREAKER = 1, 2
local BUCKETS = 12
local RING = '>dddddddddddd'
local EMPTY_RING = struct.pack(RING, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
local spread = unpack
local pack, unpack = struct.pack, struct.unpack
local floor, ceil = math.floor, math.ceil

local states = {}      -- KEYS index -> state
local state_order = {}

-- The state behind KEYS[k], read once a batch. Fails on a wrong type or a foreign format, before anything is written.
local function state_at(k)
  local st = states[k]
  if st then return st end
  st = { key = KEYS[k], ids = {}, list = {}, dirty = false }
  local raw = redis.call('GET', KEYS[k])
  if raw then
    local format, n, pos = unpack('>BH', raw)
    if format ~= 1 then error('state format ' .. format) end
    for i = 1, n do
      local id, kind, body
      id, kind, body, pos = unpack('>c8BHc0', raw, pos)
      local e = { id = id, kind = kind, body = body }
      st.ids[id] = e
      st.list[i] = e
    end
  end
  states[k] = st
  state_order[#state_order + 1] = st
  return st
end

local function state_add(st, e)
  st.ids[e.id] = e
  st.list[#st.list + 1] = e
  return e
end

-- The sliding entry `id`, rolled forward to `now`. A clock that stepped back counts into the newest bucket.
local function sliding_at(st, id, window, now)
  local width = ceil(window / 11)
  local bucket = floor(now / width)
  local e = st.ids[id]
  if not e then
    return { id = id, kind = KIND_SLIDING, window = window, idx = bucket, sum = 0, cur = 0, ring = EMPTY_RING, fresh = true }
  end
  if not e.idx then
    e.window, e.idx, e.sum, e.cur, e.ring = unpack('>I4dddc96', e.body)
    if e.window ~= window then error('window of a limit entry') end
  end
  if bucket > e.idx then
    if bucket - e.idx >= BUCKETS then
      e.ring, e.sum = EMPTY_RING, 0
    else
      local ring = { unpack(RING, e.ring) }
      ring[e.idx % BUCKETS + 1] = e.cur
      local sum = e.sum
      for i = e.idx + 1, bucket do
        local slot = i % BUCKETS + 1
        sum = sum - ring[slot]
        ring[slot] = 0
      end
      ring[BUCKETS + 1] = nil
      e.ring = pack(RING, ring[1], ring[2], ring[3], ring[4], ring[5], ring[6], ring[7], ring[8], ring[9], ring[10],
        ring[11], ring[12])
      e.sum = sum
    end
    e.idx, e.cur = bucket, 0
  end
  return e
end

-- Milliseconds until enough units have left for `units` more to pass; -1 when they never can.
local function sliding_wait(e, limit, units, now)
  if units > limit then return -1 end
  local ring = { unpack(RING, e.ring) }
  ring[e.idx % BUCKETS + 1] = e.cur
  local need = e.sum + units - limit
  local width = ceil(e.window / 11)
  for i = e.idx - BUCKETS + 1, e.idx do
    need = need - ring[i % BUCKETS + 1]
    if need <= 0 then return (i + BUCKETS) * width - now end
  end
  error('sum of a limit entry')
end

local function sliding_charge(st, e, units)
  if e.fresh then
    e.fresh = nil
    state_add(st, e)
  end
  e.sum = e.sum + units
  e.cur = e.cur + units
  st.dirty = true
end

local function sliding_body(e)
  return pack('>I4ddd', e.window, e.idx, e.sum, e.cur) .. e.ring
end
