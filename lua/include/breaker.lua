-- The breaker of a tenant's provider, an entry of the tenant's state. Without an entry it is closed and clean.
--
--   c8 provider, B state (0 closed, 1 open, 2 half open), d since, d until, I4 failures in a row, B successes half
--   open,
--         d kept until, I4 bucket ms, d bucket index, 10 × (I4 calls, I4 failures), B probes, then each:
--         c8 id, d expires
--
-- Times are Redis ms. An expired probe is neither success nor failure. Open: no probe before `until`, which a re-trip
-- only extends. Closed after a trial: slow start, a share of the requests that grows from `since` to `until`.
--
-- A `since` that lies ahead of now dates from before Redis' clock was set back: the breaker is moved back as a whole.
--
-- Most calls look at one breaker of a state. So `packed` of a state has the positions of its breakers, and a breaker is
-- unpacked into `breakers` when it is used; one that no row uses is written back as it was.
local CLOSED, OPEN, HALF_OPEN = 0, 1, 2
local BREAKER = '>c8BddI4BdI4dc80B'
local BREAKER_SIZE, AT_KEPT, AT_PROBES, PROBE_SIZE = 131, 30, 130, 16
local SLOW_MAX_MS, SLOW_MIN = 10000, 0.1
local RATE_BUCKETS = 10
local RATE_RING = '>' .. string.rep('I4', 20)
local RATE_EMPTY = string.rep('\0', 80)

breakers_find = function(st, raw, pos)
  local packed = {}
  while pos <= #raw do
    packed[raw:sub(pos, pos + 7)] = pos
    pos = pos + BREAKER_SIZE + raw:byte(pos + AT_PROBES) * PROBE_SIZE
  end
  if pos ~= #raw + 1 then error('breakers of a state') end
  st.breakers, st.packed, st.raw = {}, packed, raw
end

local function breaker_unpack(raw, pos)
  local _, state, since, until_ms, failures, successes, kept, bucket_ms, bucket, rate, n
  _, state, since, until_ms, failures, successes, kept, bucket_ms, bucket, rate, n, pos = unpack(BREAKER, raw, pos)
  local probes = {}
  for i = 1, n do
    local probe_id, expires
    probe_id, expires, pos = unpack('>c8d', raw, pos)
    probes[i] = { id = probe_id, expires = expires }
  end
  return {
    state = state, since = since, until_ms = until_ms, failures = failures, successes = successes,
    kept = kept, bucket_ms = bucket_ms, bucket = bucket, rate = rate, probes = probes,
  }
end

-- The breaker of a provider in a state that has breakers; nil: it is closed and clean.
local function breaker_of(st, id)
  local b = st.breakers[id]
  if not b then
    local pos = st.packed[id]
    if not pos then return nil end
    b = breaker_unpack(st.raw, pos)
    st.breakers[id], st.packed[id] = b, nil
  end
  return b
end

-- All breakers that are still kept, packed, and when the last of them ends.
local function breakers_pack(st, now)
  local parts, last, raw = {}, 0, st.raw
  for id, e in pairs(st.breakers) do
    if e.kept > now then
      if e.kept > last then last = e.kept end
      parts[#parts + 1] = pack(BREAKER, id, e.state, e.since, e.until_ms, e.failures, e.successes, e.kept,
        e.bucket_ms, e.bucket, e.rate, #e.probes)
      for i = 1, #e.probes do parts[#parts + 1] = pack('>c8d', e.probes[i].id, e.probes[i].expires) end
    end
  end
  for _, pos in pairs(st.packed) do
    local kept = unpack('>d', raw, pos + AT_KEPT)
    if kept > now then
      if kept > last then last = kept end
      parts[#parts + 1] = raw:sub(pos, pos + BREAKER_SIZE + raw:byte(pos + AT_PROBES) * PROBE_SIZE - 1)
    end
  end
  return table.concat(parts), last
end

-- Moves a breaker back that turned at a moment ahead of now: it turned just now, and lasts as long as it would have.
local function breaker_back(st, e, now)
  local shift = e.since - now
  if shift <= 0 then return end
  e.since, e.until_ms, e.kept = now, math.max(now, e.until_ms - shift), math.max(now, e.kept - shift)
  for i = 1, #e.probes do e.probes[i].expires = e.probes[i].expires - shift end
  st.dirty = true
end

-- Whether a breaker that has just closed leaves this request to others; `part` in [0, 1) is the request's own.
local function breaker_slow(st, e, part, now)
  if now >= e.until_ms then return false end
  breaker_back(st, e, now)
  return part >= math.max(SLOW_MIN, (now - e.since) / (e.until_ms - e.since))
end

-- The running probes. One that would last longer than any deadline dates from before the clock was set back, and has
-- expired.
local function breaker_live_probes(e, now)
  local live = {}
  for i = 1, #e.probes do
    local expires = e.probes[i].expires
    if expires > now and expires <= now + longest_deadline then live[#live + 1] = e.probes[i] end
  end
  return live
end
