-- Limits of a state whose newest bucket lies ahead, because Redis' clock was set back.
--
-- All limits of the owner that lie more than a bucket width ahead are moved back together: the newest bucket becomes
-- the present one and the ages among the buckets stay. So nothing leaves sooner than it would have, and nothing stays
-- longer than a window.
--
-- After a move, the time of a charge no longer identifies its bucket, and a result that gives units back names only the
-- time. So the move leaves a note in the state. It is packed as a limit that no row names; pods of every version keep
-- it until it ends, one window and the longest deadline later.
--
--   note     c8 id = NOTE, I4 its life, d index, d 1, d 1, ring: d moved_at, d from, d upto, 72 bytes of 0
--
-- Charges until `moved_at`, and those in (from, upto], may date from before the move. `upto` is the end of the newest
-- bucket that was moved. `from` is as far before it as an unsettled task may be old.
local NOTE = 'moved\0\0\0'
local NOTE_RING = '>dddddddddddd'
local MAX_LIFE_MS = 4294967295

local function note_offset(st)
  for o = 1, st.n * STRIDE, STRIDE do
    if st.v[o] == NOTE then return o end
  end
end

-- Where the note goes: over the last one, else behind the limits, else over one that has ended; nil: there is no room.
local function note_place(st, now)
  local v, o = st.v, note_offset(st)
  if o then return o end
  if st.n < MAX_LIMITS then
    st.n = st.n + 1
    return (st.n - 1) * STRIDE + 1
  end
  for at = 1, st.n * STRIDE, STRIDE do
    if (v[at + INDEX] + BUCKETS) * ceil(v[at + WINDOW] / 11) <= now then return at end
  end
end

local function write_note(v, o, life, moved_at, from, upto)
  v[o], v[o + WINDOW], v[o + INDEX] = NOTE, life, floor(moved_at / ceil(life / 11))
  v[o + SUM], v[o + CURRENT] = 1, 1
  v[o + RING] = pack(NOTE_RING, moved_at, from, upto, 0, 0, 0, 0, 0, 0, 0, 0, 0)
end

-- Moves the limit at offset `o` back: its newest bucket becomes `bucket`.
local function sliding_back(v, o, bucket)
  local ring, turned = { unpack(BUCKET_RING, v[o + RING]) }, {}
  for age = 0, BUCKETS - 1 do
    turned[(bucket - age) % BUCKETS + 1] = ring[(v[o + INDEX] - age) % BUCKETS + 1]
  end
  v[o + RING], v[o + INDEX] = pack(BUCKET_RING, spread(turned, 1, BUCKETS)), bucket
end

-- Moves every limit of the state back that lies ahead of now, and leaves the note.
local function state_back(st, now)
  local v, upto, window = st.v, 0, 0
  for o = 1, st.n * STRIDE, STRIDE do
    local width = ceil(v[o + WINDOW] / 11)
    local bucket = floor(now / width)
    if v[o] ~= NOTE and v[o + INDEX] > bucket + 1 then
      upto, window = math.max(upto, (v[o + INDEX] + 1) * width), math.max(window, v[o + WINDOW])
      sliding_back(v, o, bucket)
    end
  end
  local life = math.min(window + longest_deadline, MAX_LIFE_MS)
  local from = upto - life
  local before = note_offset(st)
  if before then
    local _, from_before, upto_before = unpack('>ddd', v[before + RING])
    from, upto = math.min(from, from_before), math.max(upto, upto_before)
    life = math.max(life, v[before + WINDOW])
  end
  local o = note_place(st, now)
  -- Without room (255 limits that count) results give back as if nothing had moved: at most what they reserved.
  if o then write_note(v, o, life, now, from, upto) end
  st.dirty = true
end

-- Whether a charge may date from before a move, or lies ahead of now: then a result gives nothing of it back.
local function charged_before_move(st, charged_ms, now)
  if charged_ms > now then return true end
  local v, o = st.v, note_offset(st)
  if not o then return false end
  local moved_at, from, upto = unpack('>ddd', v[o + RING])
  -- The clock was set back once more, and no limit lies ahead: the note must not outlive its own length.
  if moved_at > now then
    moved_at, st.dirty = now, true
    write_note(v, o, v[o + WINDOW], moved_at, from, upto)
  end
  return charged_ms <= moved_at or (charged_ms > from and charged_ms <= upto)
end
