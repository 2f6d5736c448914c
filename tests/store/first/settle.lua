#!lua flags=allow-oom
-- settle: move tasks and undispatched decisions on: published, acknowledged, ended; a batch, each row atomic
-- KEYS
--   task            <schema>:{p}:~:task:<task>          rows of kind 1
--   idem            <schema>{p}<name>                   rows of kind 2
--   job             <schema>:{p}:~:job:<task>           deleted at the end of a task
--   due             <schema>:{p}:~:due                  when to look at the task next
--   outbox          <schema>:{p}:~:outbox               usage to publish
--   state           <schema>:{p}:<tenant>:s             tenant limits, breakers
--   state_policy    <schema>:{p}:<tenant>:sp:<policy>   policy limits
--   state_user      <schema>:{p}:<tenant>:su:<hash>     user limits
--   state_provider  <schema>:{p}:<tenant>:sv:<provider> provider limits
--   lease           <schema>:{p}:<tenant>:c:<owner>     concurrency
--   audit           <schema>:{p}:<tenant>:audit         one record a settled row or note
-- ARGV
--   batch           struct: I4 audit records kept
--   row             see store/tasks/settle_rows.py
-- RETURNS
--   0 settled       B breaker now (0 unchanged, 1 opened, 2 half open, 3 closed)
--   1 changed       somebody was first, or it is gone: the value as it is now, empty when there is none
--   2 fault         text; this row wrote nothing that counts
-- GUARANTEES
--   The call returns { 0, seconds, microseconds, one string a row: I4 nonce, B code, then as above }.
--   A task moves only forward: its decision and attempt must be the row's and its state below the row's bound, so the first
--   result wins and a repeated call changes nothing. A result gives back only in the bucket that was charged; an overrun
--   is charged now. Runs when Redis is out of memory, because ending work frees it.
--   Every key has a TTL or a bound: see KEYS in store/keys.py.
--- @include clock
--- @include state
--- @include breaker
--- @include breaker_settle
--- @include flush
local SETTLED, CHANGED, FAULT = 0, 1, 2
local KIND_TASK, KIND_REMEMBERED, KIND_NOTE = 1, 2, 3
local NONE, AUDIT_OPENED, AUDIT_CLOSED = 0, 12, 14
local call = redis.call
local now, now_us = server_time()
local audit_max = tostring(unpack('>I4', ARGV[1]))
local RECORD = '>BBddc16BBdBc0c0'
local ROW = '>I4BHHHHHHc16BBBBHI4d' .. 'Bc8I4dI4I4I4I4' .. 'BHc0I4c0BB'

local function audit(k, action, decision, code, index, blob)
  call('XADD', KEYS[k], 'MAXLEN', '~', audit_max, '*', 'r',
    pack(RECORD, 1, action, now, now_us, decision, code, index, -1, 0, '', blob))
end

-- Units differ from what was reserved at `charged_ms`: give back there, or charge the rest now.
local function adjust(row, pos)
  local k, id, window, charged_ms, delta, after = unpack('>Hc8I4dd', row, pos)
  local st = state_at(k)
  local o, v = sliding_at(st, id, window, now), st.v
  if delta > 0 then
    sliding_charge(st, o, delta)
    return after
  end
  local bucket = floor(charged_ms / ceil(window / 11))
  local back = 0
  if bucket == v[o + INDEX] then
    back = math.min(-delta, v[o + CURRENT])
    v[o + CURRENT] = v[o + CURRENT] - back
  elseif bucket < v[o + INDEX] and v[o + INDEX] - bucket < BUCKETS then
    local ring = { unpack(BUCKET_RING, v[o + RING]) }
    local slot = bucket % BUCKETS + 1
    back = math.min(-delta, ring[slot])
    ring[slot] = ring[slot] - back
    v[o + RING] = pack(BUCKET_RING, spread(ring, 1, BUCKETS))
  end
  v[o + SUM] = v[o + SUM] - back
  if back > 0 then st.dirty = true end
  return after
end

-- The value after the move; nil and what is there when the row does not fit it.
local function moved(kind, there, decision, attempt, below, state, why, deadline)
  if kind == KIND_TASK then
    local format, state_now, attempt_now, _, charged_ms, deadline_now, decision_now = unpack('>BBBHddc16', there)
    if format ~= 1 then error('delivery record of format ' .. format) end
    if decision_now ~= decision or attempt_now ~= attempt or state_now >= below then return nil end
    if deadline == 0 then deadline = deadline_now end
    return pack('>BBBHdd', 1, state, attempt, why, charged_ms, deadline) .. there:sub(22)
  end
  local format, random, flags = unpack('>B', there), there:sub(10, 13), there:byte(15)
  if format ~= 1 then error('remembered answer of format ' .. format) end
  if random ~= decision:sub(13) or flags % 8 >= 4 then return nil end
  return there:sub(1, 14) .. string.char(flags + 4) .. there:sub(16)
end

local function run(row)
  local nonce, kind, k_subject, k_job, k_due, k_outbox, k_state, k_audit, decision, attempt, below, state, code, why, ttl, due_at,
    verdict, entry, failures_max, rate_max, window, minimum, timeout, successes_needed, action, blob, usage, n_adjust,
    n_leases, pos = unpack(ROW, row)
  if kind == KIND_NOTE then
    audit(k_audit, action, decision, code, attempt, blob)
    return nonce, SETTLED, '\0'
  end
  local there = call('GET', KEYS[k_subject])
  if not there then return nonce, CHANGED, '' end
  local after = moved(kind, there, decision, attempt, below, state, why, due_at)
  if not after then return nonce, CHANGED, there end
  local st = verdict ~= NONE and state_at(k_state)
  local adjust_at = pos
  for _ = 1, n_adjust do
    local k, id, window, _, after_it = unpack('>Hc8I4c16', row, pos)
    sliding_at(state_at(k), id, window, now)
    pos = after_it
  end

  -- Write: leases first, because their keys may be of a wrong type and ending one twice does no harm.
  for _ = 1, n_leases do
    local k
    k, pos = unpack('>H', row, pos)
    call('ZREM', KEYS[k], decision)
  end
  if action > 0 then audit(k_audit, action, decision, code, attempt, blob) end
  if #usage > 0 then call('HSET', KEYS[k_outbox], k_job > 0 and KEYS[k_job]:sub(-16) or decision, usage) end
  if kind == KIND_TASK then
    if due_at > 0 then
      call('SET', KEYS[k_subject], after, 'KEEPTTL')
      call('ZADD', KEYS[k_due], due_at, KEYS[k_subject]:sub(-16))
    else
      -- The end: a tombstone, so that a repeated or late result finds what came of the task.
      call('SET', KEYS[k_subject], after, 'PX', ttl)
      call('ZREM', KEYS[k_due], KEYS[k_subject]:sub(-16))
      call('UNLINK', KEYS[k_job])
    end
  else
    call('SET', KEYS[k_subject], after, 'KEEPTTL')
  end
  for _ = 1, n_adjust do adjust_at = adjust(row, adjust_at) end
  local turned = 0
  if st then
    turned = breaker_settle(st, entry, verdict == 1, decision:sub(9, 16), now, {
      failures = failures_max, rate = rate_max, window = window, minimum = minimum, timeout = timeout,
      successes = successes_needed,
    })
    if turned == 1 then audit(k_audit, AUDIT_OPENED, decision, 0, 0, blob) end
    if turned == 3 then audit(k_audit, AUDIT_CLOSED, decision, 0, 0, blob) end
  end
  return nonce, SETTLED, string.char(turned)
end

local replies = { 0, floor(now / 1000), (now % 1000) * 1000 + now_us }
for i = 2, #ARGV do
  local ok, nonce, code, rest = pcall(run, ARGV[i])
  if not ok then
    local text = type(nonce) == 'table' and nonce.err or tostring(nonce)
    nonce, code, rest = #ARGV[i] >= 4 and unpack('>I4', ARGV[i]) or 0, FAULT, text
  end
  replies[i + 2] = pack('>I4Bc0', nonce, code, rest)
end
flush_states(now)
return replies
