-- A breaker per (tenant, provider), an entry of the tenant's state; absent means closed and clean.
--
--   body  B state (0 closed, 1 open, 2 half open), d opened_at, d open_until, H failures in a row, B successes half open,
--         d keep until, I4 bucket ms, d bucket index, 10 × (I4 calls, I4 failures), B probes, then per probe: c8 id, d expires
--
-- Times are Redis ms. An expired probe is neither success nor failure. A re-trip only extends open_until.
local CLOSED, OPEN, HALF_OPEN = 0, 1, 2
local RATE_BUCKETS = 10
local RATE_RING = '>' .. string.rep('I4', 20)
local RATE_EMPTY = string.rep('\0', 80)

local function breaker_at(st, id)
  local e = st.ids[id]
  if e and not e.state then
    local n, pos
    e.state, e.opened_at, e.open_until, e.failures, e.successes, e.keep, e.bucket_ms, e.bucket, e.rate, n, pos =
      unpack('>BddHBdI4dc80B', e.body)
    e.probes = {}
    for i = 1, n do
      local probe = {}
      probe.id, probe.expires, pos = unpack('>c8d', e.body, pos)
      e.probes[i] = probe
    end
  end
  return e
end

local function breaker_new(id)
  return {
    id = id, kind = KIND_BREAKER, state = CLOSED, opened_at = 0, open_until = 0, failures = 0, successes = 0, keep = 0,
    bucket_ms = 0, bucket = 0, rate = RATE_EMPTY, probes = {},
  }
end

local function breaker_live_probes(e, now)
  local live = {}
  for i = 1, #e.probes do
    if e.probes[i].expires > now then live[#live + 1] = e.probes[i] end
  end
  return live
end

local function breaker_body(e)
  local parts = {
    pack('>BddHBdI4d', e.state, e.opened_at, e.open_until, e.failures, e.successes, e.keep, e.bucket_ms, e.bucket),
    e.rate, string.char(#e.probes),
  }
  for i = 1, #e.probes do
    parts[#parts + 1] = pack('>c8d', e.probes[i].id, e.probes[i].expires)
  end
  return table.concat(parts)
end
