-- A breaker per (tenant, provider), an entry of the tenant's state; absent means closed and clean.
--
--   body  B state (0 closed, 1 open, 2 half open), d opened_at, d open_until, I4 failures in a row, B successes half open,
--         d kept until, I4 bucket ms, d bucket index, 10 × (I4 calls, I4 failures), B probes, then each: c8 id, d expires
--
-- Times are Redis ms. An expired probe is neither success nor failure. A re-trip only extends open_until.
local CLOSED, OPEN, HALF_OPEN = 0, 1, 2
local BREAKER = '>Bc8BddI4BdI4dc80B'
local RATE_BUCKETS = 10
local RATE_RING = '>' .. string.rep('I4', 20)
local RATE_EMPTY = string.rep('\0', 80)

breaker_unpack = function(raw, pos)
  local kind, id, state, opened_at, open_until, failures, successes, kept, bucket_ms, bucket, rate, n, after =
    unpack(BREAKER, raw, pos)
  if kind ~= KIND_BREAKER then error('state entry of kind ' .. kind) end
  local probes = {}
  for i = 1, n do
    local probe_id, expires
    probe_id, expires, after = unpack('>c8d', raw, after)
    probes[i] = { id = probe_id, expires = expires }
  end
  return {
    id = id, state = state, opened_at = opened_at, open_until = open_until, failures = failures, successes = successes,
    kept = kept, bucket_ms = bucket_ms, bucket = bucket, rate = rate, probes = probes,
  }, after
end

local function breaker_pack(e)
  local packed = pack(BREAKER, KIND_BREAKER, e.id, e.state, e.opened_at, e.open_until, e.failures, e.successes, e.kept,
    e.bucket_ms, e.bucket, e.rate, #e.probes)
  for i = 1, #e.probes do packed = packed .. pack('>c8d', e.probes[i].id, e.probes[i].expires) end
  return packed
end

local function breaker_live_probes(e, now)
  local live = {}
  for i = 1, #e.probes do
    if e.probes[i].expires > now then live[#live + 1] = e.probes[i] end
  end
  return live
end
