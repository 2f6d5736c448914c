-- The charges of a row against limits and bounds: checked first, and made only when the row is certain to be admitted.
--- @names charge_kinds
--- @names charge_options
--- @layout charge
local MAX_UNITS = 2 ^ 53

-- The charges that the row will make, three values each, in one table that every row uses again:
--   sliding       its state, its offset in there, units
--   log           key index, minus its window, units
--   concurrency   key index, false, units
local charges, charged = {}, 0
-- Units that each charge's limit had left before this row. The request's own charges come first; a candidate's begin
-- behind `row_charges`.
local left, row_charges = {}, 0

-- Leases that last longer than any deadline date from before Redis' clock was set back. They last as long as this
-- row's.
local function leases_back(k)
  local ahead = call('ZRANGEBYSCORE', KEYS[k], string.format('(%.0f', now + longest_deadline), '+inf')
  for i = 1, #ahead do call('ZADD', KEYS[k], now + lease_ms, ahead[i]) end
end

-- Milliseconds until `more` + 1 leases have ended by themselves. More than one may have to: the bound may have been
-- lowered, and next attempts take their lease beyond it.
local function lease_wait(k, more)
  leases_back(k)
  return tonumber(call('ZRANGEBYSCORE', KEYS[k], alive_from(), '+inf', 'WITHSCORES', 'LIMIT', more, 1)[2]) - now
end

-- Checks the `n` charges at `pos` and keeps them. `from`: index of the first one in `left`. Returns the position
-- behind them, the index of the refusal that waits longest and its wait (-1: for ever; nil: all admit), and the
-- indexes of the shadow limits that would have refused.
local function check_charges(row, pos, n, from)
  local worst, worst_wait, shadow
  local list, last = charges, charged
  for i = 0, n - 1 do
    --- @unpack charge row, pos -> after
    pos = after
    -- NaN and negative units would spoil the counter for good.
    if not (units >= 0 and units <= MAX_UNITS) then error('units of a charge') end
    local wait, st, o, free
    if kind == KIND_SLIDING then
      st = states[k] or state_at(k)
      o = sliding_at(st, id, window_ms, now, i * STRIDE + 1)
      free = limit - st.v[o + SUM]
      if free < units then wait = sliding_wait(st.v, o, limit, units, now) end
    elseif kind == KIND_LOG then
      log_back(KEYS[k], window_ms, now)
      local used, gone = log_used(KEYS[k], window_ms, now)
      free, o = limit - used, -window_ms
      -- A full log admits nothing until its oldest charge has left.
      if units > 0 and log_full(KEYS[k], used, gone) then used = math.max(used, limit) end
      if used + units > limit then wait = log_wait(KEYS[k], limit, units, used, window_ms, now) end
    elseif kind == KIND_CONCURRENCY then
      free = limit - call('ZCOUNT', KEYS[k], alive_from(), '+inf')
      if free < units then
        wait = -1
        if units <= limit then wait = lease_wait(k, units - free - 1) end
      end
    else
      error('kind of a charge')
    end
    left[from + i + 1] = free
    list[last + 1], list[last + 2], list[last + 3] = st or k, o or false, units
    last = last + 3
    if wait then
      if options % (2 * CHARGE_SHADOW) >= CHARGE_SHADOW then
        shadow = (shadow or '') .. char(from + i)
      elseif not worst or wait < 0 or (worst_wait >= 0 and wait > worst_wait) then
        worst, worst_wait = i, wait
      end
    end
  end
  charged = last
  return pos, worst, worst_wait, shadow
end

local function take_lease(k, until_ms)
  call('ZREMRANGEBYSCORE', KEYS[k], '-inf', now)
  call('ZADD', KEYS[k], until_ms, decision)
  if call('PTTL', KEYS[k]) < until_ms - now then call('PEXPIRE', KEYS[k], until_ms - now + 1000) end
end

-- Makes the charges. Sliding limits change in memory and are written when the call ends; the others are written now.
local function charge(until_ms)
  local list = charges
  for i = 1, charged, 3 do
    local st, o, units = list[i], list[i + 1], list[i + 2]
    if not o then
      take_lease(st, until_ms)
    elseif o < 0 then
      log_charge(KEYS[st], decision, units, -o, now)
    elseif units > 0 then
      -- sliding_charge, inlined: a row makes several charges, and each would cost a call.
      local v = st.v
      v[o + SUM], v[o + CURRENT] = v[o + SUM] + units, v[o + CURRENT] + units
      st.charged = true
    end
  end
end
