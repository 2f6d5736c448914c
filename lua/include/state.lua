-- One packed string per owner: its sliding limits and (the tenant's) its breakers.
--
--   string   B format = 1, then entries: B kind, c8 id, body
--   sliding  I4 window_ms, d bucket index, d sum of 12 buckets, d current bucket, 12 d ring (slot = index % 12)
--   breaker  see include/breaker.lua
--
-- An entry is found by its id, never by position. One that no row names is kept until it ends. The current bucket's slot
-- in the ring is stale: `cur` has it. Buckets are 1/11 of the window wide and the oldest counts whole, so that no window
-- of length W ever holds more than the sum of 12.
--
-- A state is a table: its entries by id (8 bytes), and the fields KEY and DIRTY, whose names no id can have. Tables and
-- strings are what a row costs, so entries are unpacked in one go and scratch tables are used again.
local spread = unpack
local pack, unpack = struct.pack, struct.unpack
local floor, ceil = math.floor, math.ceil
local KIND_SLIDING, KIND_BREAKER = 1, 2
local SLIDING = '>Bc8I4dddc96'
local BUCKETS = 12
local RING = '>dddddddddddd'
local EMPTY_RING = string.rep('\0', 96)
local breaker_unpack

local states = {}

-- The state behind KEYS[k], read once a batch. Fails on a wrong type or a foreign format, before anything is written.
local function state_at(k)
  local st = states[k]
  if st then return st end
  st = { KEY = KEYS[k], DIRTY = false }
  local raw = redis.call('GET', KEYS[k])
  if raw then
    if raw:byte(1) ~= 1 then error('state of format ' .. raw:byte(1)) end
    local pos, size = 2, #raw
    while pos <= size do
      if raw:byte(pos) == KIND_SLIDING then
        local _, id, window, idx, sum, cur, ring, after = unpack(SLIDING, raw, pos)
        st[id] = { window = window, idx = idx, sum = sum, cur = cur, ring = ring }
        pos = after
      else
        local e
        e, pos = breaker_unpack(raw, pos)
        st[e.id] = e
      end
    end
  end
  states[k] = st
  return st
end

-- Rolls a sliding entry forward to `bucket`.
local function sliding_roll(e, bucket)
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
    e.ring = pack(RING, spread(ring, 1, BUCKETS))
    e.sum = sum
  end
  e.idx, e.cur = bucket, 0
end

-- The sliding entry `id`, rolled to `now`; nil when nothing is counted. A clock that stepped back counts into the newest
-- bucket.
local function sliding_at(st, id, window, now)
  local e = st[id]
  if not e then return nil end
  if e.window ~= window then error('window of a limit entry') end
  local bucket = floor(now / ceil(window / 11))
  if bucket > e.idx then sliding_roll(e, bucket) end
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

local function sliding_charge(st, id, window, units, now)
  local e = st[id]
  if e then
    e.sum = e.sum + units
    e.cur = e.cur + units
  else
    st[id] = { window = window, idx = floor(now / ceil(window / 11)), sum = units, cur = units, ring = EMPTY_RING }
  end
  st.DIRTY = true
end
