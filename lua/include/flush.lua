-- Write back every changed state of the batch: always, also when rows failed. TTL: the longest window or timeout in it.
local function entry_end(e)
  if e.kind == KIND_SLIDING then
    local window, idx = e.window, e.idx
    if not idx then window, idx = unpack('>I4d', e.body) end
    return (idx + BUCKETS) * ceil(window / 11)
  end
  return breaker_at({ ids = { [e.id] = e } }, e.id).keep
end

local function flush_states(now)
  for i = 1, #state_order do
    local st = state_order[i]
    if st.dirty then
      local parts, last, n = { '' }, 0, 0
      for j = 1, #st.list do
        local e = st.list[j]
        local ends = entry_end(e)
        if ends > now then
          local body = e.body
          if e.idx then body = sliding_body(e) elseif e.state then body = breaker_body(e) end
          n = n + 1
          parts[n + 1] = pack('>c8BHc0', e.id, e.kind, #body, body)
          if ends > last then last = ends end
        end
      end
      if n > 0 then
        parts[1] = pack('>BH', 1, n)
        redis.call('SET', st.key, table.concat(parts), 'PX', ceil(last - now))
      else
        redis.call('DEL', st.key)
      end
    end
  end
end
