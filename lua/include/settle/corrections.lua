-- Corrections of reservations: what a result used beyond its estimates is charged, unused units are given back.
--- @names charge_kinds
--- @layout correction

-- Gives units back to a sliding limit, in the bucket that was charged, unless it has left the window or was moved.
local function give_back(st, o, units, charged_ms)
  if charged_before_move(st, charged_ms, now) then return end
  local v = st.v
  local bucket = floor(charged_ms / ceil(v[o + WINDOW] / 11))
  local back = 0
  if bucket == v[o + INDEX] then
    back = math.min(units, v[o + CURRENT])
    v[o + CURRENT] = v[o + CURRENT] - back
  elseif bucket < v[o + INDEX] and v[o + INDEX] - bucket < BUCKETS then
    local ring = { unpack(BUCKET_RING, v[o + RING]) }
    local slot = bucket % BUCKETS + 1
    back = math.min(units, ring[slot])
    ring[slot] = ring[slot] - back
    v[o + RING] = pack(BUCKET_RING, spread(ring, 1, BUCKETS))
  end
  v[o + SUM] = v[o + SUM] - back
  if back > 0 then st.dirty = true end
end

-- Reads the keys of `n` corrections, so that one of a wrong type fails before anything is written.
local function check_corrections(row, pos, n)
  for at = pos, pos + (n - 1) * CORRECTION_SIZE, CORRECTION_SIZE do
    --- @unpack correction(k, kind, id, window_ms) row, at
    if kind == KIND_LOG then
      call('ZCARD', KEYS[k])
    else
      sliding_at(state_at(k), id, window_ms, now)
    end
  end
end

-- Corrects reservations: charges units beyond them now, or gives unused units back.
local function correct(row, pos, n, decision)
  for _ = 1, n do
    --- @unpack correction row, pos -> after
    if kind == KIND_LOG then
      log_adjust(KEYS[k], decision, charged_ms, window_ms, delta, now)
    else
      local st = state_at(k)
      local o = sliding_at(st, id, window_ms, now)
      if delta > 0 then
        sliding_charge(st, o, delta)
      else
        give_back(st, o, -delta, charged_ms)
      end
    end
    pos = after
  end
end
