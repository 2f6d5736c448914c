#!lua name=settle flags=allow-oom
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
-- Set for every call.
local KEYS
--- @names settle_kinds
--- @names settle_flags
--- @layout settle_reply
--- @layout lease
--- @include clock
--- @include state
--- @include log_limit
--- @include breaker
--- @include breaker_settle
--- @include flush_states
--- @include figures
local SETTLED, CHANGED, FAULT = 0, 1, 2
local NO_VERDICT, SUCCESS, AUDIT_OPENED, AUDIT_CLOSED = 0, 1, 12, 14
local call = redis.call
local now, now_us
--- @locals settle_batch
local audit_known, audit_text
--- @include settle/corrections
--- @include settle/records

-- Writes an audit record of format 1: as of decide (include/decide/record.lua), without seen and offer.
local function audit(k, action, decision, code, index, features)
  call('XADD', KEYS[k], 'MAXLEN', '~', audit_text, '*', 'r',
    pack('>BBddc16BBdB', 1, action, now, now_us, decision, code, index, -1, 0) .. features)
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

local function begin(keys, argv)
  KEYS = keys
  states, figures = {}, {}
  now, now_us = server_time()
  --- @assign settle_batch argv[1]
  longest_deadline = deadline_max_ms
  -- Pods of one fleet send the same number, and a number costs 1,000 instructions to convert.
  if audit_max ~= audit_known then audit_known, audit_text = audit_max, tostring(audit_max) end
end

return function(keys, argv)
  begin(keys, argv)
  local replies = { 0, floor(now / 1000), (now % 1000) * 1000 + now_us }
  for i = 2, #argv do
    local ok, nonce, code, rest = pcall(run, argv[i])
    if not ok then
      local text = type(nonce) == 'table' and nonce.err or tostring(nonce)
      nonce, code, rest = #argv[i] >= 4 and unpack('>I4', argv[i]) or 0, FAULT, text
    end
    replies[i + 2] = pack(SETTLE_REPLY_FORMAT, nonce, code, rest)
  end
  -- Whatever became of the rows: what those changed that went well must be written.
  flush_states(now)
  flush_figures()
  states, figures = nil, nil
  return replies
end
