-- The state of an owner: one packed string with its sliding limits and, for a tenant, its breakers.
--
--   string   B format = 1, B limits, then each limit, then each breaker (include/breaker.lua)
--   limit    c8 id, I4 window_ms, d bucket index, d sum of 12 buckets, d current bucket, 12 d ring (slot = index % 12)
--
-- An entry is found by its id, never by position. An entry that no row names is kept until it ends. The current bucket
-- is counted beside the ring, so its slot in the ring is stale. A bucket is 1/11 of the window wide and the oldest one
-- counts whole. So no window of that length ever holds more than the sum of 12 buckets.
--
-- When Redis' clock was set back, a newest bucket that begins at most one bucket width after now is charged as the
-- present one. When one lies further ahead, all limits of the owner are moved back (`state_back`): see include/moved.
--
-- Most of what a row costs is the creation of tables and strings. So one call unpacks all limits of a state into one
-- array, `v`, six values each, and one call packs them back. A limit is its offset in that array.
--
-- What a call changed in a state says how include/flush_states.lua writes it: `charged`: sums and current buckets;
-- `dirty`: anything else; `rolled`: nothing that counts yet, but the string has other buckets or fewer limits than `v`.
local spread = unpack
local pack, unpack = struct.pack, struct.unpack
local floor, ceil = math.floor, math.ceil
local BUCKETS = 12
local STRIDE, WINDOW, INDEX, SUM, CURRENT, RING = 6, 1, 2, 3, 4, 5
local LIMIT = 'c8I4dddc96'
local LIMIT_BYTES = 132
local BUCKET_RING = '>dddddddddddd'
local EMPTY_RING = string.rep('\0', 96)
local MAX_LIMITS = 255
-- The longest deadline that a task may have, ms; scripts that settle or decide set it from their header.
local longest_deadline = 0
local limit_formats = {}
local breakers_find

local states = {}

local function limits_format(n)
  local format = limit_formats[n]
  if not format then
    format = '>BB' .. string.rep(LIMIT, n)
    limit_formats[n] = format
  end
  return format
end

-- The array of a raw state string: drops format and number of limits, keeps the limits and the next position.
local function limits_of(_, _, ...)
  return { ... }
end

-- The state behind KEYS[k], read once a call. Fails on a wrong type or a foreign format, before anything is written.
local function state_at(k)
  local st = states[k]
  if st then return st end
  local raw = redis.call('GET', KEYS[k])
  if raw then
    local format, n = raw:byte(1, 2)
    if format ~= 1 then error('state of format ' .. format) end
    st = { key = KEYS[k], v = limits_of(unpack(limits_format(n), raw)), n = n }
    local after = 3 + n * LIMIT_BYTES
    if after <= #raw then breakers_find(st, raw, after) end
  else
    st = { key = KEYS[k], v = {}, n = 0 }
  end
  states[k] = st
  return st
end

-- Rolls the limit at offset `o` forward to `bucket`.
local function sliding_roll(st, o, bucket)
  local v = st.v
  local from = v[o + INDEX]
  if bucket - from >= BUCKETS then
    v[o + RING], v[o + SUM] = EMPTY_RING, 0
  else
    local ring = { unpack(BUCKET_RING, v[o + RING]) }
    ring[from % BUCKETS + 1] = v[o + CURRENT]
    local sum = v[o + SUM]
    for i = from + 1, bucket do
      local slot = i % BUCKETS + 1
      sum = sum - ring[slot]
      ring[slot] = 0
    end
    v[o + RING] = pack(BUCKET_RING, spread(ring, 1, BUCKETS))
    v[o + SUM] = sum
  end
  v[o + INDEX], v[o + CURRENT], st.rolled = bucket, 0, true
end

--- @include moved

-- The bucket of `now` by window, for as long as `now` stays the same: most limits of a call have one of few windows.
local buckets, buckets_now = {}, nil

local function bucket_at(window, now)
  if now ~= buckets_now then buckets, buckets_now = {}, now end
  local bucket = buckets[window]
  if not bucket then
    bucket = floor(now / ceil(window / 11))
    buckets[window] = bucket
  end
  return bucket
end

-- The offset of limit `id`, rolled to `now`, or moved back to it. A missing limit is created; it is not written back
-- unless it counts something. `guess`: the offset to look at first; nil: unknown.
local function sliding_at(st, id, window, now, guess)
  local v, n = st.v, st.n
  local bucket, o = bucket_at(window, now), guess
  if v[o] ~= id then
    o = nil
    for at = 1, n * STRIDE, STRIDE do
      if v[at] == id then
        o = at
        break
      end
    end
  end
  if o then
    if v[o + WINDOW] ~= window then error('window of a limit') end
    if bucket ~= v[o + INDEX] then
      if bucket > v[o + INDEX] then
        sliding_roll(st, o, bucket)
      elseif bucket + 1 < v[o + INDEX] then
        state_back(st, now)
      end
    end
    return o
  end
  if n >= MAX_LIMITS then error('more than 255 limits of one owner') end
  o = n * STRIDE + 1
  v[o], v[o + WINDOW], v[o + INDEX], v[o + SUM], v[o + CURRENT], v[o + RING] = id, window, bucket, 0, 0, EMPTY_RING
  st.n, st.rolled = n + 1, true
  return o
end

-- Milliseconds until so many units have left that `units` more are admitted; -1 when they never can be.
local function sliding_wait(v, o, limit, units, now)
  if units > limit then return -1 end
  local ring = { unpack(BUCKET_RING, v[o + RING]) }
  local index = v[o + INDEX]
  ring[index % BUCKETS + 1] = v[o + CURRENT]
  local need = v[o + SUM] + units - limit
  local width = ceil(v[o + WINDOW] / 11)
  for i = index - BUCKETS + 1, index do
    need = need - ring[i % BUCKETS + 1]
    if need <= 0 then return (i + BUCKETS) * width - now end
  end
  error('sum of a limit')
end

local function sliding_charge(st, o, units)
  local v = st.v
  v[o + SUM] = v[o + SUM] + units
  v[o + CURRENT] = v[o + CURRENT] + units
  st.charged = true
end
