-- Write back every changed state of the batch: always, also when rows failed. TTL: the longest window or timeout in it.

-- Drops the limits that have ended or count nothing; returns how many are left and when the last of them ends.
local function limits_left(st, now)
  local v, kept, last = st.v, 0, 0
  for o = 1, st.n * STRIDE, STRIDE do
    local ends = (v[o + INDEX] + BUCKETS) * ceil(v[o + WINDOW] / 11)
    if ends > now and v[o + SUM] > 0 then
      local to = kept * STRIDE + 1
      if to ~= o then
        for i = 0, STRIDE - 1 do v[to + i] = v[o + i] end
      end
      kept = kept + 1
      if ends > last then last = ends end
    end
  end
  return kept, last
end

-- A damaged string may name any moment; none of ours lives longer than a window or timeout.
local LONGEST_MS = 400 * 86400000

local function flush_state(st, now)
  local n, last = limits_left(st, now)
  local breakers = ''
  if st.breakers then
    local ends
    breakers, ends = breakers_pack(st.breakers, now)
    if ends > last then last = ends end
  end
  if last > 0 then
    local packed = pack(limits_format(n), 1, n, spread(st.v, 1, n * STRIDE))
    if breakers ~= '' then packed = packed .. breakers end
    redis.call('SET', st.key, packed, 'PX', math.min(ceil(last - now), LONGEST_MS))
  else
    redis.call('DEL', st.key)
  end
end

-- One owner's string that cannot be written must not take the counts of the others with it.
local function flush_states(now)
  for _, st in pairs(states) do
    if st.dirty then
      local ok, fault = pcall(flush_state, st, now)
      if not ok then
        fault = type(fault) == 'table' and fault.err or tostring(fault)
        redis.log(redis.LOG_WARNING, 'router: a state was not written: ' .. fault)
      end
    end
  end
end
