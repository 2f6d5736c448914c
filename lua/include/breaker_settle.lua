-- What one result does to a breaker: `breaker_settle` returns 0 unchanged, 1 opened, 2 half open, 3 closed.
--
--   closed    failures in a row, or the share of failures in the window over a minimum of calls → open
--   open      a failure only extends; a probe's success (when_all_open: probe_one) counts as in half open
--   half open only probes count: enough successes → closed, one failure → open again
--
-- Open or half open, it is kept until probes close it, at most a day after probes are due: an idle tenant comes back to
-- probes. Closed, it is kept for the window and the slow start.
local TRIP_KEPT_MS = 86400000

local function breaker_count(e, ok, window, now)
  local size = ceil(window / RATE_BUCKETS)
  local bucket = floor(now / size)
  -- Buckets that lie ahead date from before the clock was set back: they would count for as long as it was ahead.
  if e.bucket_ms ~= size or bucket - e.bucket >= RATE_BUCKETS or e.bucket - bucket > 1 then
    e.rate, e.bucket_ms, e.bucket = RATE_EMPTY, size, bucket
  end
  local ring = { unpack(RATE_RING, e.rate) }
  for i = e.bucket + 1, bucket do
    local slot = (i % RATE_BUCKETS) * 2
    ring[slot + 1], ring[slot + 2] = 0, 0
  end
  if bucket > e.bucket then e.bucket = bucket end
  local slot = (e.bucket % RATE_BUCKETS) * 2
  ring[slot + 1] = ring[slot + 1] + 1
  if not ok then ring[slot + 2] = ring[slot + 2] + 1 end
  e.rate = pack(RATE_RING, spread(ring, 1, RATE_BUCKETS * 2))
  local calls, failures = 0, 0
  for i = 1, RATE_BUCKETS * 2, 2 do
    calls, failures = calls + ring[i], failures + ring[i + 1]
  end
  return calls, failures
end

-- Removes the probe of this decision and those that have expired; returns whether it was there and in time.
local function breaker_end_probe(e, probe_id, now)
  local kept, was = {}, false
  for i = 1, #e.probes do
    local probe = e.probes[i]
    if probe.id == probe_id then
      was = probe.expires > now
    elseif probe.expires > now then
      kept[#kept + 1] = probe
    end
  end
  e.probes = kept
  return was
end

-- For a result that says nothing of the provider: ends its probe, so that another one may be sent.
local function breaker_let_go(st, id, probe_id, now)
  local e = st.breakers and breaker_of(st, id)
  if e and breaker_end_probe(e, probe_id, now) then st.dirty = true end
end

local function breaker_open(e, timeout, now)
  local turned = e.state ~= OPEN and 1 or 0
  -- Probes that are still out belong to the failed trial: they no longer count.
  if turned == 1 then
    if e.state == CLOSED then e.until_ms = 0 end
    e.since, e.probes = now, {}
  end
  e.state, e.successes = OPEN, 0
  e.until_ms = math.max(e.until_ms, now + timeout)
  return turned
end

local function breaker_settle(st, id, ok, probe_id, now, with)
  if not st.breakers then st.breakers, st.packed = {}, {} end
  local e = breaker_of(st, id)
  if not e then
    e = {
      state = CLOSED, since = 0, until_ms = 0, failures = 0, successes = 0, kept = 0, bucket_ms = 0,
      bucket = 0, rate = RATE_EMPTY, probes = {},
    }
    st.breakers[id] = e
  end
  st.dirty = true
  breaker_back(st, e, now)
  local was_probe = breaker_end_probe(e, probe_id, now)
  local calls, failed = breaker_count(e, ok, with.window_ms, now)
  local turned = 0
  if e.state == CLOSED then
    e.failures = ok and 0 or e.failures + 1
    if e.failures >= with.failures_max or (calls >= with.minimum and failed / calls >= with.rate_max and not ok) then
      turned = breaker_open(e, with.timeout_ms, now)
    end
  elseif not ok then
    if e.state == OPEN or was_probe then turned = breaker_open(e, with.timeout_ms, now) end
  elseif was_probe then
    e.successes = e.successes + 1
    if e.successes >= with.successes_needed then
      e.state, e.failures, e.successes, e.rate, e.probes = CLOSED, 0, 0, RATE_EMPTY, {}
      e.since, e.until_ms = now, now + math.min(with.timeout_ms, SLOW_MAX_MS)
      e.kept = e.until_ms
      turned = 3
    elseif e.state == OPEN then
      e.state = HALF_OPEN
      turned = 2
    end
  end
  e.kept = math.max(e.kept, now + with.window_ms)
  if e.state ~= CLOSED then e.kept = math.max(e.kept, e.until_ms + TRIP_KEPT_MS) end
  return turned
end
