#!lua flags=no-writes
-- measure: how full the limits of tenants are, and how their breakers stand; it writes nothing
-- KEYS
--   head            <schema>:{p}:<tenant>:head          forced breakers
--   state           <schema>:{p}:<tenant>:s             tenant limits, breakers
--   state_policy    <schema>:{p}:<tenant>:sp:<policy>   policy limits
--   state_provider  <schema>:{p}:<tenant>:sv:<provider> provider limits
--   lease           <schema>:{p}:<tenant>:c:<owner>     concurrency
--   log             <schema>:{p}:<tenant>:l:<owner>     limits of algorithm log
-- ARGV
--   row             one a tenant, struct: H head, H state, H counters, then each: H key, c8 limit, I4 window_ms (0: leases), B 1
--                   of algorithm log; KEYS are named by their index
-- RETURNS
--   0 measured      one string a row, struct: I4 open, I4 half open, I4 forced, then a d each: units in use of a counter;
--                   empty when something of the row cannot be read
-- GUARANTEES
--   A breaker that an operator holds open is counted as forced only; one whose life time has passed is not counted. Redis
--   itself refuses a write, and runs it out of memory, too.
--- @include clock
--- @include state
--- @include log
--- @include breaker
--- @include levers
local FORCED = 7
local COUNTER = '>Hc8I4B'
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

local function used_of(k, id, window, logged)
  if window == 0 then return call('ZCOUNT', KEYS[k], alive, '+inf') end
  if logged then return (log_used(KEYS[k], window, now)) end
  local st = state_at(k)
  return st.v[sliding_at(st, id, window, now) + SUM]
end

local function measure(row)
  local k_head, k_state, n, pos = unpack('>HHH', row)
  local forced, held = forced_at(k_head)
  local open, half = 0, 0
  for id, b in pairs(state_at(k_state).breakers or {}) do
    if b.kept > now and not forced[id] then
      if b.state == OPEN then open = open + 1 end
      if b.state == HALF_OPEN then half = half + 1 end
    end
  end
  local parts = { pack('>I4I4I4', open, half, held) }
  for i = 1, n do
    local k, id, window, logged
    k, id, window, logged, pos = unpack(COUNTER, row, pos)
    parts[i + 1] = pack('>d', used_of(k, id, window, logged == 1))
  end
  return table.concat(parts)
end

local replies = { 0 }
for i = 1, #ARGV do
  local ok, answer = pcall(measure, ARGV[i])
  replies[i + 1] = ok and answer or ''
end
return replies
