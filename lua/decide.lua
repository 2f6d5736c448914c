#!lua name=decide
-- decide: answer a batch of requests, each row atomic, in one call
-- KEYS
--   idem            <schema>{p}<name>                   the remembered answer
--   head            <schema>:{p}:<tenant>:head          read only
--   state           <schema>:{p}:<tenant>:s             tenant limits, breakers
--   state_policy    <schema>:{p}:<tenant>:sp:<policy>   policy limits
--   state_user      <schema>:{p}:<tenant>:su:<hash>     user limits
--   state_provider  <schema>:{p}:<tenant>:sv:<provider> provider limits
--   lease           <schema>:{p}:<tenant>:c:<owner>     concurrency
--   log             <schema>:{p}:<tenant>:l:<owner>     limits of algorithm log
--   pin             <schema>:{p}:<tenant>:pin:<hash>    sticky session
--   audit           <schema>:{p}:<tenant>:audit         one record a row, none of a replay
--   task            <schema>:{p}:~:task:<task>          delivery record, pushed rows
--   job             <schema>:{p}:~:job:<task>           work item, set by the pod just before the call
--   due             <schema>:{p}:~:due                  pushed rows
--   claim           <schema>{p}<name>:claim             who prepares this request, rows that claim
--   message         <schema>{p}m<hash>                  decision of a message, rows that have one
--   steps           <schema>:{p}:<tenant>:steps:<name>  decisions of the request's steps, rows of a step
-- ARGV
--   batch           layout decide_batch
--   row             one a request: layouts decide_row, charge, candidate, claim, message, failed, steps
-- RETURNS
--   0 admitted      layout admitted
--   1 replay        the remembered value
--   2 conflict      the key came with another request; of a next attempt: its task does not wait for it
--   3 limited       layout limited; then seen
--   4 none          no candidate is fit: layout no_candidate; then seen
--   5 late          not_after has passed; nothing was read or written
--   6 off           the tenant is switched off
--   7 fault         text; this row wrote nothing that counts
--   8 busy          another pod prepares this request: layout busy (rows that claim)
--   9 unrecorded    layout limited: refused, and the tenant's quota of audit records is used up, so there is no record
-- GUARANTEES
--   The call returns { 0, seconds, microseconds, one string a row: layout reply, then as above }. A row reads and
--   checks everything before it writes anything: a refusal charges nothing. A row runs under pcall: a faulty row gets
--   code 7 and the other rows run. State strings are written back whatever the outcome of the rows. A preview takes
--   the same steps and ends before the first write; it writes only the claim that it may ask for. Times in the future,
--   left by a Redis clock that was set back, are moved back by any row that reads them. "seen" are the observations of
--   a row (include/decide/seen.lua), for previews and rows that explain. A row writes in this order: index of message
--   and step, due set, audit record, charges (in memory), leases, probe, pin, life of the work item, delivery record,
--   remembered answer. A fault before the charges leaves at most an index entry and a due entry without a record, which
--   the sweeper drops. Every key has a TTL or a bound: see KEYS in router/store/key_kinds.py.
-- Set for every call.
local KEYS
--- @include clock
--- @include state
--- @include log_limit
--- @include breaker
--- @include flush_states
local now, now_us
--- @locals decide_batch
--- @include decide/call
-- The head of the current row's tenant.
local head
local call, char = redis.call, string.char
local ADMITTED, REPLAY, CONFLICT, LIMITED, NONE, LATE, OFF, FAULT, BUSY, UNRECORDED = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
local V_CHOSEN, V_OPEN, V_PROBES, V_CONCURRENCY, V_LIMIT, V_FORCED, V_SLOW = 1, 2, 3, 4, 5, 7, 9
local STICKY, FALLBACK, BREAKER_FALLBACK = 3, 5, 6
local PIN_NONE, PIN_NEW, PIN_HELD, PIN_LEFT = 0, 1, 2, 3
local TASK_NEW, TASK_WAITING = 1, 4
-- A pin that the row leaves because its provider is reported as failed; stands behind its entry in what was seen.
local PIN_FAILED, WHICHEVER_IS_PINNED = '\1', '\0\0\0\0\0\0\0\0'
local OUTCOME_PUSHED, OUTCOME_FALLBACK, OUTCOME_RESERVED, OUTCOME_METER, OUTCOME_OWNED = 1, 2, 8, 16, 64
--- @layout admitted
--- @layout limited
--- @layout no_candidate
--- @layout busy
--- @include decide/row
--- @include decide/heads
--- @include decide/charges
--- @include decide/seen
--- @include decide/candidates
--- @include decide/record
--- @include decide/effects
--- @include decide/next_attempt

-- The early reply of a row: replay, conflict, switched off, or busy; nil: the row continues. `remembered`: the
-- remembered answer.
local function refuse_early(row, remembered)
  if remembered then
    if remembered:byte(1) ~= 1 then error('remembered answer of format ' .. remembered:byte(1)) end
    -- Compares 5 bytes: the other three are the tenant's mark, which answers of the first version lack.
    if remembered:sub(2, 6) == fingerprint:sub(1, 5) then return reply(REPLAY, head.stamp, remembered) end
    return refuse(row, AUDIT_CONFLICT, CONFLICT, 0, -1, '', SAW_NOTHING, '')
  end
  if head.off then return refuse(row, AUDIT_REFUSED, OFF, 0, -1, '', SAW_NOTHING, '') end
  if claims then
    local owner = call('GET', KEYS[k_claim])
    if owner and owner ~= decision then
      return reply(BUSY, head.stamp, pack(BUSY_FORMAT, call('PTTL', KEYS[k_claim])))
    end
  end
end

-- The provider entry in the session's pin, and when it was set; nil when there is no pin.
local function read_pin()
  local pin = call('GET', KEYS[k_pin])
  if not pin then return nil end
  local format, pinned, pinned_at = unpack('>Bc8d', pin)
  if format ~= 1 then error('pin of format ' .. format) end
  return pinned, pinned_at
end

-- Writes an admitted row. The writes before the audit record may fail, and what they leave does no harm. After the
-- record no write can fail.
local function write(c, st, index, reason, pin_state, pinned_at, verdicts, seen)
  local until_ms = now + lease_ms
  if optional then write_indexes() end
  if k_task > 0 then add_due() end
  audit(record_of(AUDIT_MADE, reason, index - 1, pin_state, verdicts, seen, c.offer))
  charge(until_ms)
  if c.bound > 0 then take_lease(c.k_lease, until_ms) end
  if c.probe then take_probe(st, c, until_ms) end
  -- A pin in use is written again once it has aged by a tenth: most requests of a busy session save this write.
  if k_pin > 0 and (pin_state ~= PIN_HELD or now - pinned_at > pin_ms / 10) then
    call('SET', KEYS[k_pin], pack('>Bc8d', 1, c.entry, now), 'PX', pin_ms)
  end
  if k_task > 0 then
    call('PEXPIRE', KEYS[k_job], job_ms)
    write_task(c, reason, now, until_ms)
  end
  remember(c, reason)
end

-- Chooses a candidate and writes the decision. `pos`: of the first candidate; `shadow`: of the request's own limits.
local function admit(row, pos, shadow)
  local pinned, pinned_at, followed
  if k_pin > 0 then
    pinned, pinned_at = read_pin()
    followed = pinned
    -- The walk does not follow a pin to the provider that the caller reports as failed.
    if failed and (failed == pinned or failed == WHICHEVER_IS_PINNED) then followed = nil end
  end
  if k_task > 0 and call('EXISTS', KEYS[k_job]) == 0 then error('the work item is missing') end
  local st = k_state > 0 and (states[k_state] or state_at(k_state))
  local c, index, verdicts, broke, wait = walk(row, pos, followed, st)
  if not c then
    local seen = seen_by_row()
    local rest = pack(NO_CANDIDATE_FORMAT, wait, #verdicts, verdicts) .. (explain and seen or '')
    return refuse(row, AUDIT_REFUSED, NONE, 0, wait, verdicts, seen, rest)
  end
  if c.n_charges > 0 then note_chosen(c, index) end
  local pin_state, reason = PIN_NONE, c.reason
  if k_pin > 0 then
    if not pinned then
      pin_state = PIN_NEW
    elseif pinned ~= c.entry then
      pin_state = PIN_LEFT
    else
      pin_state = PIN_HELD
      if followed then reason = STICKY end
    end
  end
  if broke and reason ~= STICKY then reason = BREAKER_FALLBACK end
  local seen = seen_by_row(pin_state == PIN_LEFT and (followed and pinned or pinned .. PIN_FAILED))
  shadow = (shadow or '') .. (c.shadow or '')
  -- Made before the writes, because it may fail too.
  local answer = pack(ADMITTED_FORMAT, nonce, ADMITTED, head.stamp, index - 1, reason, pin_state, #shadow, #verdicts,
    verdicts, shadow, explain and seen or '')
  if not preview then
    write(c, st, index, reason, pin_state, pinned_at, verdicts, seen)
  elseif claims then
    call('SET', KEYS[k_claim], decision, 'PX', claim_ms)
  end
  return answer
end

-- One row, in three steps: read it, refuse it early, admit it. Lua does not roll back, so everything is read and
-- checked before the first write. A fault before it then changes nothing, and a refusal charges nothing.
local function run(row)
  --- @assign decide_row row -> charges_at
  if flags >= ROW_PREVIEW then
    read_options(row)
  elseif optional then
    optional, preview, claims, explain, failed = nil, nil, nil, nil, nil
  end
  if not_after < now or call_not_after < now then return reply(LATE, NO_STAMP, '') end
  renew = flags % (2 * ROW_RENEW) >= ROW_RENEW
  head = heads[k_head] or head_at(k_head)
  if attempt > 1 then return next_attempt(row) end
  charged, row_charges, waits, own = 0, n_charges, '\0', '\0'
  local remembered = call('GET', KEYS[k_idem])
  if remembered or head.off or claims then
    local early = refuse_early(row, remembered)
    if early then return early end
  end
  local pos, worst, wait, shadow = check_charges(row, charges_at, n_charges, 0)
  if not worst then return admit(row, pos, shadow) end
  local seen = seen_by_row()
  local rest = pack(LIMITED_FORMAT, worst, wait) .. (explain and seen or '')
  return refuse(row, AUDIT_REFUSED, LIMITED, worst, wait, '', seen, rest)
end

local function begin(keys, argv)
  KEYS = keys
  states, heads, renew = {}, {}, false
  now, now_us = server_time()
  --- @assign decide_batch argv[1]
  longest_deadline = deadline_max_ms
  begin_texts()
end

return function(keys, argv)
  begin(keys, argv)
  local replies = { 0, floor(now / 1000), (now % 1000) * 1000 + now_us }
  for i = 2, #argv do
    local ok, answer = pcall(run, argv[i])
    if not ok then
      local text = type(answer) == 'table' and answer.err or tostring(answer)
      nonce = #argv[i] >= 4 and unpack('>I4', argv[i]) or 0
      answer = reply(FAULT, NO_STAMP, text)
    end
    replies[i + 2] = answer
  end
  -- Even when rows fail, the state of the other rows must be written.
  flush_states(now)
  states, heads = nil, nil
  return replies
end
