#!lua flags=allow-oom
-- settle: move tasks and undispatched decisions on: published, acknowledged, ended; a batch, each row atomic
-- KEYS
--   task            <schema>:{p}:~:task:<task>          rows of a task
--   idem            <schema>{p}<name>                   rows of a remembered answer
--   job             <schema>:{p}:~:job:<task>           the work item; after the task's end the final result
--   due             <schema>:{p}:~:due                  when the task is due next
--   outbox          <schema>:{p}:~:outbox               usage to publish
--   state           <schema>:{p}:<tenant>:s             tenant limits, breakers
--   state_policy    <schema>:{p}:<tenant>:sp:<policy>   policy limits
--   state_user      <schema>:{p}:<tenant>:su:<hash>     user limits
--   state_provider  <schema>:{p}:<tenant>:sv:<provider> provider limits
--   lease           <schema>:{p}:<tenant>:c:<owner>     concurrency
--   log             <schema>:{p}:<tenant>:l:<owner>     limits of algorithm log
--   audit           <schema>:{p}:<tenant>:audit         one record a row whose action is not 0
--   figures         <schema>:{p}:<tenant>:f             live figures: a success teaches its latency and cost
-- ARGV
--   batch           layout settle_batch
--   row             layouts settle_row, correction, lease, breaker, figures, mark (router/store/scripts/layouts.py)
-- RETURNS
--   0 settled       B breaker now (0 unchanged, 1 opened, 2 half open, 3 closed)
--   1 changed       another call was first, or the task is gone: the value as it is now, empty when there is none
--   2 fault         text; this row wrote nothing that counts
-- GUARANTEES
--   The call returns { 0, seconds, microseconds, one string a row: layout settle_reply, then as above }. A task moves
--   only forward: its decision and attempt must be the row's and its state below the row's bound. So the first result
--   wins and a repeated call changes nothing. A task that ended while it was unknown whether a worker had it is moved
--   once more, by a row that reopens. The final result for the caller is stored in the same act, and stays due until a
--   pod has published it. A result gives units back only in the bucket that was charged; units beyond the reservation
--   are charged now. Live figures change in the same act and never stop it. Runs when Redis is out of memory, because
--   ending work frees it. Every key has a TTL or a bound: see KEYS in router/store/key_kinds.py.
--- @names charge_kinds
--- @names settle_kinds
--- @names settle_flags
--- @names dispatched
--- @layout settle_reply
--- @layout correction
--- @layout lease
--- @include clock
--- @include state
--- @include log_limit
--- @include breaker
--- @include breaker_settle
--- @include flush
--- @include figures
local SETTLED, CHANGED, FAULT = 0, 1, 2
local NO_VERDICT, SUCCESS, AUDIT_OPENED, AUDIT_CLOSED = 0, 1, 12, 14
local ANSWER_SETTLED, ANSWER_FINISHED, ANSWER_MARKED = 4, 32, 128
-- The pod that makes the call publishes the final result; after this time a sweeper does.
local PUBLISH_MS = 5000
local call = redis.call
local now, now_us = server_time()
--- @unpack settle_batch ARGV[1]
audit_max = tostring(audit_max)
longest_deadline = deadline_max_ms

-- Writes an audit record of format 1: as of decide (include/decide/record.lua), without seen and offer.
local function audit(k, action, decision, code, index, features)
  call('XADD', KEYS[k], 'MAXLEN', '~', audit_max, '*', 'r',
    pack('>BBddc16BBdBc0c0', 1, action, now, now_us, decision, code, index, -1, 0, '', features))
end

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

-- The delivery record after the move, and whether it had ended before; nil when the row does not fit it.
local function moved_task(record, decision, attempt, before_state, state, why, due_at, reopens)
  local format, state_now, attempt_now, why_now, charged_ms, due_now, decision_now = unpack('>BBBHddc16', record)
  if format ~= 1 then error('delivery record of format ' .. format) end
  if decision_now ~= decision or attempt_now ~= attempt then return nil end
  local ended = reopens and state_now >= before_state and (why_now == DISPATCH_OPEN or why_now == DISPATCH_FAILED)
  if state_now >= before_state and not ended then return nil end
  local after = pack('>BBBHdd', 1, state, attempt, why, charged_ms, due_at > 0 and due_at or due_now)
  return after .. record:sub(22), ended
end

-- The remembered answer after its result; nil when it is another decision's or has its result. `mark`: of the result,
-- nil: none; an answer that post extensions have finished takes none, because pods of 0.1.0 could not read it.
local function moved_answer(answer, decision, mark)
  local random, flags = answer:sub(10, 13), answer:byte(15)
  if answer:byte(1) ~= 1 then error('remembered answer of format ' .. answer:byte(1)) end
  if random ~= decision:sub(13) or flags % (2 * ANSWER_SETTLED) >= ANSWER_SETTLED then return nil end
  if mark and flags % (2 * ANSWER_FINISHED) < ANSWER_FINISHED then
    return answer:sub(1, 14) .. string.char(flags + ANSWER_SETTLED + ANSWER_MARKED) .. answer:sub(16) .. mark
  end
  return answer:sub(1, 14) .. string.char(flags + ANSWER_SETTLED) .. answer:sub(16)
end

-- Writes a task that has not ended; it is due at `due_at`.
local function keep_task(k_subject, k_due, record, due_at)
  call('SET', KEYS[k_subject], record, 'KEEPTTL')
  call('ZADD', KEYS[k_due], due_at, KEYS[k_subject]:sub(-16))
end

-- Writes the end of a task: the record stays as a tombstone, so that a repeated or late result finds how the task
-- ended. The final result takes the place of the work item and is due until it was published: by the pod that makes
-- this call or, after its death, by a sweeper.
local function end_task(k_subject, k_job, k_due, record, keep_ms, final)
  local task = KEYS[k_subject]:sub(-16)
  if #final > 0 then call('ZADD', KEYS[k_due], now + PUBLISH_MS, task) end
  call('SET', KEYS[k_subject], record, 'PX', keep_ms)
  if #final > 0 then
    call('SET', KEYS[k_job], final, 'PX', keep_ms)
  else
    call('ZREM', KEYS[k_due], task)
    call('UNLINK', KEYS[k_job])
  end
end

-- The optional parts at `pos`: the breaker's settings, the measurements for the live figures, and the result's mark;
-- nil for each absent part.
local function read_parts(row, pos, flags)
  local settings, learned, by
  if flags % (2 * SETTLE_BREAKER) >= SETTLE_BREAKER then
    settings = {}
    --- @assign breaker into settings row, pos -> pos
  end
  if flags % (2 * SETTLE_FIGURES) >= SETTLE_FIGURES then
    learned = {}
    --- @assign figures into learned row, pos -> pos
  end
  if flags % (2 * SETTLE_MARK) >= SETTLE_MARK then
    by = {}
    --- @assign mark into by row, pos -> pos
  end
  if pos ~= #row + 1 then error('size of a row') end
  return settings, learned, by and by.mark
end

-- Counts the verdict on the provider's breaker; without settings the result says nothing of the provider, and only
-- ends its probe. Returns what became of the breaker.
local function count_verdict(st, settings, entry, ok, decision)
  local probe = decision:sub(9, 16)
  if settings then return breaker_settle(st, entry, ok, probe, now, settings) end
  breaker_let_go(st, entry, probe, now)
  return 0
end

local function run(row)
  --- @unpack settle_row row -> corrections
  if kind == SETTLE_NOTE then
    audit(k_audit, action, decision, code, attempt, features)
    return nonce, SETTLED, '\0'
  end
  local there = call('GET', KEYS[k_subject])
  if not there then return nonce, CHANGED, '' end
  local leases = corrections + n_corrections * CORRECTION_SIZE
  local parts = leases + n_leases * LEASE_SIZE
  if parts ~= #row - extra_bytes + 1 then error('size of a row') end
  local settings, learned, mark = read_parts(row, parts, flags)
  local after, had_ended
  if kind == SETTLE_TASK then
    local reopens = flags % (2 * SETTLE_REOPENS) >= SETTLE_REOPENS
    after, had_ended = moved_task(there, decision, attempt, before_state, state, why, due_at, reopens)
  else
    after = moved_answer(there, decision, mark)
  end
  if not after then return nonce, CHANGED, there end
  local st = verdict ~= NO_VERDICT and state_at(k_state)
  check_corrections(row, corrections, n_corrections)

  -- Write: leases first, because their keys may be of a wrong type and ending a lease twice does no harm.
  for at = leases, parts - 1, LEASE_SIZE do
    --- @unpack lease row, at
    call('ZREM', KEYS[k], decision)
  end
  if action > 0 then audit(k_audit, action, decision, code, attempt, features) end
  if #usage > 0 then call('HSET', KEYS[k_outbox], k_job > 0 and KEYS[k_job]:sub(-16) or decision, usage) end
  if kind == SETTLE_ANSWER then
    call('SET', KEYS[k_subject], after, 'KEEPTTL')
  elseif had_ended then
    -- The final result, and when it is due, are those of the end: a caller gets one.
    call('SET', KEYS[k_subject], after, 'PX', keep_ms)
  elseif due_at > 0 then
    keep_task(k_subject, k_due, after, due_at)
  else
    end_task(k_subject, k_job, k_due, after, keep_ms, final)
  end
  correct(row, corrections, n_corrections, decision)
  local turned = 0
  if st then
    turned = count_verdict(st, settings, entry, verdict == SUCCESS, decision)
    if turned == 1 then audit(k_audit, AUDIT_OPENED, decision, 0, 0, features) end
    if turned == 3 then audit(k_audit, AUDIT_CLOSED, decision, 0, 0, features) end
  end
  if learned then figures_learn(learned.k_figures, entry, learned.latency_ms, learned.cost_microusd, now) end
  return nonce, SETTLED, string.char(turned)
end

local replies = { 0, floor(now / 1000), (now % 1000) * 1000 + now_us }
for i = 2, #ARGV do
  local ok, nonce, code, rest = pcall(run, ARGV[i])
  if not ok then
    local text = type(nonce) == 'table' and nonce.err or tostring(nonce)
    nonce, code, rest = #ARGV[i] >= 4 and unpack('>I4', ARGV[i]) or 0, FAULT, text
  end
  replies[i + 2] = pack(SETTLE_REPLY_FORMAT, nonce, code, rest)
end
-- Whatever became of the rows: what those changed that went well must be written.
flush_states(now)
flush_figures()
return replies
