-- Write back every changed state of the batch: always, also when rows failed. TTL: the longest window or timeout in it.
-- One pack makes the whole string: every string that Lua makes is hashed and copied.
local flush_formats = {}
local flush_values = {}

local function flush_states(now)
  for _, st in pairs(states) do
    if st.DIRTY then
      local n, entries, last, breakers = 0, 0, 0, nil
      for id, e in pairs(st) do
        if #id == 8 then
          local ends = e.kept or (e.idx + BUCKETS) * ceil(e.window / 11)
          if ends > now then
            if ends > last then last = ends end
            if e.kept then
              breakers = (breakers or '') .. breaker_pack(e)
            else
              flush_values[n + 1], flush_values[n + 2], flush_values[n + 3] = KIND_SLIDING, id, e.window
              flush_values[n + 4], flush_values[n + 5], flush_values[n + 6] = e.idx, e.sum, e.cur
              flush_values[n + 7] = e.ring
              n, entries = n + 7, entries + 1
            end
          end
        end
      end
      if last > 0 then
        local format = flush_formats[entries]
        if not format then
          format = '>B' .. string.rep('Bc8I4dddc96', entries)
          flush_formats[entries] = format
        end
        local packed = pack(format, 1, spread(flush_values, 1, n))
        if breakers then packed = packed .. breakers end
        redis.call('SET', st.KEY, packed, 'PX', ceil(last - now))
      else
        redis.call('DEL', st.KEY)
      end
    end
  end
end
