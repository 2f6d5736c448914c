-- Live figures of a tenant's providers, from settled successes: one string a tenant.
--
--   string   B format = 1, d at, then each provider: c8 entry, d latency_ms, d its weight, d cost in micro-USD, d its weight
--
-- A figure is a mean in which every result weighs half as much after each half-life; `weight` is what all of them weigh
-- together. The cap makes it a mean of about the last 32 when results come fast. Every step lies between the mean and the
-- new result, so a figure never leaves the range of what was reported. All weights are as of `at` (Redis ms of the last
-- change), which is the version: who reads the same version reads the same figures, whenever it looks.
--
-- Figures are a hint: whatever is wrong with them must not stop a result. What is damaged begins anew, a newer format is
-- left alone.
local FIGURE, FIGURE_BYTES, FIGURES_HEAD = '>c8dddd', 40, 9
local HALF_LIFE_MS, MOST_WEIGHT, LEAST_WEIGHT = 30000, 32, 0.0001
local MOST_FIGURES, LIFE_MS = 64, 600000
local MOST_FIGURE = 2 ^ 53
local figures = {}

local function figures_read(f, raw, now)
  local format, at = unpack('>Bd', raw)
  if format ~= 1 then
    f.foreign = format > 1
    return
  end
  -- No number, or of a clock that has been set back far: none of its weights would ever halve.
  if not (at >= 0 and at <= now + LIFE_MS) then error('moment of figures') end
  local share = now > at and 0.5 ^ ((now - at) / HALF_LIFE_MS) or 1
  -- Two changes in one millisecond, or a clock that stepped back, are two versions.
  f.at = now > at and now or at + 1
  for pos = FIGURES_HEAD + 1, #raw, FIGURE_BYTES do
    local id, latency, latency_weight, cost, cost_weight = unpack(FIGURE, raw, pos)
    f.of[id] = { latency, latency_weight * share, cost, cost_weight * share }
  end
end

-- The figures behind KEYS[k], as of now, read once a batch.
local function figures_at(k, now)
  local f = figures[k]
  if f then return f end
  f = { key = KEYS[k], at = now, of = {} }
  figures[k] = f
  local raw = redis.pcall('GET', KEYS[k])
  if type(raw) == 'string' and not pcall(figures_read, f, raw, now) then f.at, f.of = now, {} end
  return f
end

-- Puts result `x` into the mean at `i` of a provider's figures; below nothing: it was not told.
local function figure_learn(e, i, x)
  if not (x >= 0 and x <= MOST_FIGURE) then return end
  local weight = math.min(e[i + 1] + 1, MOST_WEIGHT)
  e[i], e[i + 1] = e[i] + (x - e[i]) / weight, weight
end

local function figures_learn(k, id, latency, cost, now)
  local f = figures_at(k, now)
  local e = f.of[id]
  if not e then
    e = { 0, 0, 0, 0 }
    f.of[id] = e
  end
  figure_learn(e, 1, latency)
  figure_learn(e, 3, cost)
  f.dirty = true
end

local function figures_flush(f)
  if f.foreign or not f.dirty then return end
  local kept = {}
  for id, e in pairs(f.of) do
    local weight = math.max(e[2], e[4])
    -- Also drops what is no number.
    if weight >= LEAST_WEIGHT and e[1] >= 0 and e[1] <= MOST_FIGURE and e[3] >= 0 and e[3] <= MOST_FIGURE then
      kept[#kept + 1] = { weight, pack(FIGURE, id, e[1], e[2], e[3], e[4]) }
    end
  end
  if #kept > MOST_FIGURES then table.sort(kept, function(a, b) return a[1] > b[1] end) end
  local parts = { pack('>Bd', 1, f.at) }
  for i = 1, math.min(#kept, MOST_FIGURES) do parts[i + 1] = kept[i][2] end
  redis.call('SET', f.key, table.concat(parts), 'PX', LIFE_MS)
end

local function flush_figures()
  for _, f in pairs(figures) do
    local ok, fault = pcall(figures_flush, f)
    if not ok then
      fault = type(fault) == 'table' and fault.err or tostring(fault)
      redis.log(redis.LOG_WARNING, 'router: figures were not written: ' .. fault)
    end
  end
end
