#!lua flags=allow-oom
-- settle_extensions: add a pod's tallies of extensions to the fleet's records, turn their breakers, and read them
-- KEYS
--   extensions      <schema>:extensions                 one field an extension, `<stage>.<id>`
-- ARGV
--   figures         struct: I4 failures in a row that open, d error rate that opens, I4 minimum of calls, I4 ms of its
--                   window, I4 ms open, I4 ms of a generation, I4 records kept
--   tally           one an extension: see router/store/extensions.py
-- RETURNS
--   0 settled       then for each tally: the record, and its breaker's turn (-1 none, 0 closed, 1 opened, 2 half open)
-- GUARANTEES
--   All pods see one breaker. It opens on failures in a row or on the error rate, opens again after a failed probe,
--   and closes after a successful one. One probe is out at a time; one that does not return ends by itself. An empty
--   tally of an unknown extension writes nothing. Bounded: the key lives a day after the last call, and the record
--   that was updated longest ago is dropped when there are too many.
--- @include clock
local spread = unpack
local pack, unpack, floor = struct.pack, struct.unpack, math.floor
local CLOSED, OPEN, HALF_OPEN = 0, 1, 2
local NO_PROBE = '\0\0\0\0\0\0\0\0'
local BUCKETS = 23
local DAY_MS = 86400000
local HEAD = '>BBddI4dI4I4dddd' .. 'c8d'
local GENERATION = 'I4I4d' .. string.rep('I4', BUCKETS)
local RECORD = HEAD .. GENERATION .. GENERATION
local TALLY = '>BI4I4I4dddc8I4' .. string.rep('I4', BUCKETS)
local key = KEYS[1]
local now = server_time()
local row_most, rate_most, minimum, window_ms, open_ms, generation_ms, kept = unpack('>I4dI4I4I4I4I4', ARGV[1])

local function blank()
  local figures = {}
  for i = 1, 3 + BUCKETS do figures[i] = 0 end
  return figures
end

local function read(raw)
  if not raw then
    return {
      state = CLOSED, opened = 0, open_until = 0, row = 0, window = 0, rate_good = 0, rate_bad = 0, generation = 0,
      last_good = 0, last_bad = 0, updated = 0, probe = NO_PROBE, probe_until = 0, recent = blank(), before = blank(),
    }
  end
  local v = { unpack(RECORD, raw) }
  if v[1] ~= 1 then error('record of an extension of format ' .. v[1]) end
  local r = {
    state = v[2], opened = v[3], open_until = v[4], row = v[5], window = v[6], rate_good = v[7], rate_bad = v[8],
    generation = v[9], last_good = v[10], last_bad = v[11], updated = v[12], probe = v[13], probe_until = v[14],
    recent = {}, before = {},
  }
  for i = 1, 3 + BUCKETS do
    r.recent[i], r.before[i] = v[14 + i], v[17 + BUCKETS + i]
  end
  return r
end

local function written(r)
  local v = {
    1, r.state, r.opened, r.open_until, r.row, r.window, r.rate_good, r.rate_bad, r.generation, r.last_good, r.last_bad,
    r.updated, r.probe, r.probe_until,
  }
  for i = 1, 3 + BUCKETS do
    v[14 + i], v[17 + BUCKETS + i] = r.recent[i], r.before[i]
  end
  return pack(RECORD, spread(v))
end

local function add_figures(r, t)
  local generation = floor(now / generation_ms)
  -- A generation or a window that lies ahead dates from before the clock was set back.
  if generation > r.generation or r.generation - generation > 1 then
    r.before = generation == r.generation + 1 and r.recent or blank()
    r.recent, r.generation = blank(), generation
  end
  local f = r.recent
  f[1], f[2], f[3] = f[1] + t.good, f[2] + t.bad, f[3] + t.took
  for i = 1, BUCKETS do f[3 + i] = f[3 + i] + t.buckets[i] end
  local window = floor(now / window_ms)
  if window > r.window or r.window - window > 1 then r.window, r.rate_good, r.rate_bad = window, 0, 0 end
  r.rate_good, r.rate_bad = r.rate_good + t.good, r.rate_bad + t.bad
  if t.good > 0 then r.row = t.row else r.row = r.row + t.bad end
  if t.last_good > r.last_good then r.last_good = t.last_good end
  if t.last_bad > r.last_bad then r.last_bad = t.last_bad end
  r.updated = now
end

local function open(r)
  if r.state ~= OPEN and r.state ~= HALF_OPEN then r.opened = now end
  r.state, r.probe, r.probe_until = OPEN, NO_PROBE, 0
  if now + open_ms > r.open_until then r.open_until = now + open_ms end
  return OPEN
end

-- Applies a tally to the breaker; returns its new state, or -1 when it did not change.
local function turn(r, t)
  local calls = t.good + t.bad
  if r.state == CLOSED then
    local seen = r.rate_good + r.rate_bad
    if calls > 0 and (r.row >= row_most or (seen >= minimum and r.rate_bad >= rate_most * seen)) then return open(r) end
    return -1
  end
  if t.probe == NO_PROBE then return -1 end
  -- At most their own length after now, also when the clock was set back.
  r.open_until, r.probe_until = math.min(r.open_until, now + open_ms), math.min(r.probe_until, now + t.probe_ms)
  if calls == 0 then
    if now < r.open_until or now < r.probe_until then return -1 end
    r.state, r.probe, r.probe_until = HALF_OPEN, t.probe, now + t.probe_ms
    return HALF_OPEN
  end
  if t.probe ~= r.probe then return -1 end
  if t.row > 0 then return open(r) end
  r.state, r.open_until, r.probe, r.probe_until, r.row, r.rate_good, r.rate_bad = CLOSED, 0, NO_PROBE, 0, 0, 0, 0
  return CLOSED
end

-- Drops the record that was updated longest ago, when there is no room for one more.
local function make_room()
  if redis.call('HLEN', key) < kept then return end
  local all = redis.call('HGETALL', key)
  local oldest, at
  for i = 1, #all, 2 do
    local updated = read(all[i + 1]).updated
    if not at or updated < at then oldest, at = all[i], updated end
  end
  redis.call('HDEL', key, oldest)
end

local reply = { 0 }
for i = 2, #ARGV do
  local v = { unpack(TALLY, ARGV[i]) }
  local length = v[1]
  local t = {
    good = v[2], bad = v[3], row = v[4], took = v[5], last_good = v[6], last_bad = v[7], probe = v[8], probe_ms = v[9],
    buckets = {},
  }
  for b = 1, BUCKETS do t.buckets[b] = v[9 + b] end
  local name = ARGV[i]:sub(-length)
  local raw = redis.call('HGET', key, name)
  local r = read(raw)
  local calls = t.good + t.bad
  if calls > 0 then add_figures(r, t) end
  local turned = turn(r, t)
  if calls > 0 or turned >= 0 then
    if not raw then make_room() end
    redis.call('HSET', key, name, written(r))
    redis.call('PEXPIRE', key, DAY_MS)
  end
  reply[#reply + 1], reply[#reply + 2] = written(r), turned
end
return reply
