-- Writes a state as a whole. TTL: the longest window or timeout in the state.

-- Drops the limits that have ended or count nothing; returns the number of those left and when the last of them ends.
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

-- A bound on the TTL, because a damaged string may name any moment. It is longer than every window and timeout.
local LONGEST_MS = 400 * 86400000

local function flush_state(st, now)
  local n, last = limits_left(st, now)
  local breakers = ''
  if st.breakers then
    local ends
    breakers, ends = breakers_pack(st, now)
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
