#!lua flags=no-writes
-- measure: how full the limits of tenants are, and the state of their breakers; it writes nothing
-- KEYS
--   head            <schema>:{p}:<tenant>:head          forced breakers
--   state           <schema>:{p}:<tenant>:s             tenant limits, breakers
--   state_policy    <schema>:{p}:<tenant>:sp:<policy>   policy limits
--   state_provider  <schema>:{p}:<tenant>:sv:<provider> provider limits
--   lease           <schema>:{p}:<tenant>:c:<owner>     concurrency
--   log             <schema>:{p}:<tenant>:l:<owner>     limits of algorithm log
-- ARGV
--   row             one a tenant: layouts measure_row, counter (router/store/scripts/layouts.py)
-- RETURNS
--   0 measured      one string a row: layout measured; then a d for each counter: its units in use; empty when the
--                   row, or what it names, cannot be read
-- GUARANTEES
--   A breaker that an operator holds open is counted as forced only. One that is due for a probe counts as half open:
--   it may belong to an idle provider. One whose life time has passed is not counted.
--   Redis itself refuses a write of this script, and runs it when it is out of memory.
--- @names charge_kinds
--- @layout measured
--- @include clock
--- @include state
--- @include log_limit
--- @include breaker
--- @include levers
local FORCED = 7
local call = redis.call
local now = server_time()
local alive = '(' .. string.format('%.0f', now)

-- The entries of providers that operators hold open.
local function forced_at(k)
  local forced, n = {}, 0
  local _, _, levers = head_open(KEYS[k])
  for _, lever in ipairs(levers or {}) do
    if lever:byte(9) == FORCED then forced[lever:sub(1, 8)], n = true, n + 1 end
  end
  return forced, n
end

local function used_of(k, kind, id, window_ms)
  if kind == KIND_CONCURRENCY then return call('ZCOUNT', KEYS[k], alive, '+inf') end
  if kind == KIND_LOG then return (log_used(KEYS[k], window_ms, now)) end
  local st = state_at(k)
  return st.v[sliding_at(st, id, window_ms, now) + SUM]
end

local function measure(row)
  --- @unpack measure_row row -> pos
  local forced, held = forced_at(k_head)
  local open, half_open = 0, 0
  local st = state_at(k_state)
  for entry in pairs(st.packed or {}) do breaker_of(st, entry) end
  for entry, b in pairs(st.breakers or {}) do
    breaker_back(st, b, now)
    if b.kept > now and not forced[entry] then
      if b.state == OPEN and b.until_ms > now then
        open = open + 1
      elseif b.state ~= CLOSED then
        half_open = half_open + 1
      end
    end
  end
  local parts = { pack(MEASURED_FORMAT, open, half_open, held) }
  for i = 1, n_counters do
    --- @unpack counter row, pos -> after
    parts[i + 1] = pack('>d', used_of(k, kind, id, window_ms))
    pos = after
  end
  return table.concat(parts)
end

local replies = { 0 }
for i = 1, #ARGV do
  local ok, answer = pcall(measure, ARGV[i])
  replies[i + 1] = ok and answer or ''
end
return replies
