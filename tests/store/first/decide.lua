#!lua
-- decide: answer a batch of requests, each row atomic, in one call
-- KEYS
--   idem            <schema>{p}<name>                   the remembered answer
--   head            <schema>:{p}:<tenant>:head          read only
--   state           <schema>:{p}:<tenant>:s             tenant limits, breakers
--   state_policy    <schema>:{p}:<tenant>:sp:<policy>   policy limits
--   state_user      <schema>:{p}:<tenant>:su:<hash>     user limits
--   state_provider  <schema>:{p}:<tenant>:sv:<provider> provider limits
--   lease           <schema>:{p}:<tenant>:c:<owner>     concurrency
--   pin             <schema>:{p}:<tenant>:pin:<hash>    sticky session
--   audit           <schema>:{p}:<tenant>:audit         one record a row that is not a replay
--   task            <schema>:{p}:~:task:<task>          delivery record, pushed rows
--   job             <schema>:{p}:~:job:<task>           work item, set by the pod just before
--   due             <schema>:{p}:~:due                  pushed rows
-- ARGV
--   batch           struct: I4 idempotency ms, I4 audit records kept, I4 audit ms kept, I4 publish grace ms, d not_after of
--                   the call
--   row             one a request: see store/decide/rows.py; deduplicated KEYS are named by their index
-- RETURNS
--   0 admitted      B candidate, B reason, B pin state, B shadow count, B verdict count, verdicts, shadow charge indexes
--   1 replay        the remembered value
--   2 conflict      the key came with another request
--   3 limited       B charge, d retry_after_ms (-1: never)
--   4 none          d retry_after_ms (-1: unknown), verdicts
--   5 late          not_after has passed; nothing was read or written
--   6 off           the tenant is switched off
--   7 fault         text; this row wrote nothing that counts
-- GUARANTEES
--   The call returns { 0, seconds, microseconds, one string a row: I4 nonce, B code, c8 stamp, then as above }.
--   A row reads and validates first and writes after: a refusal charges nothing. It runs under pcall, so a bad row gets
--   code 7 and its neighbours run; state strings are flushed whatever happened. Writes of a row, in this order: due set,
--   audit, charges (locals), lease, probe, pin, job expiry, delivery record, remembered answer. A fault before the
--   charges leaves at most a due entry without a record, which the sweeper drops.
--   Every key has a TTL or a bound: see KEYS in store/keys.py.
--- @include clock
--- @include state
--- @include breaker
--- @include flush
local ADMITTED, REPLAY, CONFLICT, LIMITED, NONE, LATE, OFF, FAULT = 0, 1, 2, 3, 4, 5, 6, 7
local V_CHOSEN, V_OPEN, V_PROBES, V_CONCURRENCY, V_LIMIT, V_DRAINED, V_FORCED = 1, 2, 3, 4, 5, 6, 7
local STICKY, FALLBACK, BREAKER_FALLBACK = 3, 5, 6
local PIN_NONE, PIN_NEW, PIN_HELD, PIN_LEFT = 0, 1, 2, 3
local ALL_OPEN_FAIL, ALL_OPEN_PROBE_ONE = 0, 1
local F_PUSH, F_RESERVED, F_RENEW, F_METER = 1, 2, 4, 8
local C_SHADOW, C_CONCURRENCY = 1, 2
local CHARGE_BYTES = 31
local TASK_NEW, TASK_WAITING = 1, 4
local MOST_UNITS = 2 ^ 53
local AUDIT_MADE, AUDIT_REFUSED, AUDIT_CONFLICT, AUDIT_HALF_OPENED = 1, 2, 3, 13
local NO_STAMP = '\0\0\0\0\0\0\0\0'
local call, char, concat = redis.call, string.char, table.concat

local now, now_us = server_time()
local idem_ms, audit_max, audit_ms, grace_ms, call_not_after = unpack('>I4I4I4I4d', ARGV[1])
-- Arguments of commands are strings: made once.
idem_ms, audit_max, audit_ms = tostring(idem_ms), tostring(audit_max), tostring(audit_ms)
local alive = '(' .. string.format('%.0f', now)
local heads = {}

-- Stamp, whether the tenant is on, and the operators' levers (provider entry -> verdict), read once a batch.
local function head_at(k)
  local head = heads[k]
  if head then return head end
  local raw = call('GET', KEYS[k])
  if not raw then
    head = { stamp = NO_STAMP }
  else
    local format, stamp, off, n, pos = unpack('>Bc8BH', raw)
    if format ~= 1 then error('head of format ' .. format) end
    head = { stamp = stamp, off = off == 1 }
    if n > 0 then
      head.levers = {}
      for _ = 1, n do
        local id, verdict
        id, verdict, pos = unpack('>c8B', raw, pos)
        head.levers[id] = verdict
      end
    end
  end
  heads[k] = head
  return head
end

-- What a row will charge once it is sure: state and offset (of a lease: key index and false) and units, for each charge.
-- The table is used again for every row.
local charges, charged, row_charges = {}, 0, 0

-- Milliseconds until the next lease ends by itself.
local function lease_wait(k)
  return tonumber(call('ZRANGEBYSCORE', KEYS[k], alive, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]) - now
end

-- Checks the `n` charges at `pos` and keeps them. Returns the next position, the index of the worst refusal and its wait
-- (nil when all admit), and the indexes of shadow limits that would have refused, `from` the first one's.
local function check_charges(row, pos, n, from)
  local worst, worst_wait, shadow
  for i = 0, n - 1 do
    local k, id, window, limit, units, flags, after = unpack('>Hc8I4ddB', row, pos)
    pos = after
    -- Not NaN, not below nothing: either would spoil the counter for good.
    if not (units >= 0 and units <= MOST_UNITS) then error('units of a charge') end
    local wait, st, o
    if flags >= C_CONCURRENCY then
      if call('ZCOUNT', KEYS[k], alive, '+inf') + units > limit then
        wait = -1
        if units <= limit then wait = lease_wait(k) end
      end
    else
      st = states[k] or state_at(k)
      o = sliding_at(st, id, window, now)
      if st.v[o + SUM] + units > limit then wait = sliding_wait(st.v, o, limit, units, now) end
    end
    charges[charged + 1], charges[charged + 2], charges[charged + 3] = st or k, o or false, units
    charged = charged + 3
    if wait then
      if flags % 2 == C_SHADOW then
        shadow = (shadow or '') .. char(from + i)
      elseif not worst or wait < 0 or (worst_wait >= 0 and wait > worst_wait) then
        worst, worst_wait = i, wait
      end
    end
  end
  return pos, worst, worst_wait, shadow
end

-- Why a candidate is not fit; nil when it is. `c` is an unpacked candidate; sets c.wait when a moment is known, and c.probe
-- when a breaker lets it through on trial. `forced`: look past the breaker.
local function unfit(c, row, st, head, probes_max, forced)
  local verdict = head.levers and head.levers[c.id]
  if verdict then return verdict end
  local b = not forced and st and st.breakers and st.breakers[c.id]
  if b and b.state ~= CLOSED then
    if b.state == OPEN and now < b.open_until then
      c.wait = b.open_until - now
      return V_OPEN
    end
    local live = breaker_live_probes(b, now)
    if #live >= probes_max then
      for i = 1, #live do
        if not c.wait or live[i].expires - now < c.wait then c.wait = live[i].expires - now end
      end
      return V_PROBES
    end
    c.probe = live
  end
  if c.bound > 0 and call('ZCOUNT', KEYS[c.lease], alive, '+inf') >= c.bound then
    c.wait = lease_wait(c.lease)
    return V_CONCURRENCY
  end
  if c.charges > 0 then
    local before = charged
    local _, worst, wait, shadow = check_charges(row, c.pos, c.charges, row_charges)
    c.shadow = shadow
    if worst then
      charged = before
      if wait >= 0 then c.wait = wait end
      return V_LIMIT
    end
  end
end

-- The candidate at `pos`, read into table `c`, and the position after it.
local function candidate_at(row, pos, c)
  local after
  c.id, c.reason, c.bound, c.lease, c.charges, c.offer, after = unpack('>c8BI4HBBc0', row, pos)
  c.pos, c.wait, c.probe, c.shadow = after, nil, nil, nil
  return c, after + c.charges * CHARGE_BYTES
end

-- Every breaker stands in the way: the policy may send one probe (or everything) to the one that is due first.
local function when_all_open(list, verdicts, row, st, head, all_open)
  local best, index
  for i = 1, #list do
    if verdicts[i] == V_OPEN or verdicts[i] == V_PROBES then
      local b = st.breakers[list[i].id]
      if not best or b.open_until < best.open_until then best, index = b, i end
    end
  end
  if not best then return nil end
  local live = breaker_live_probes(best, now)
  if all_open == ALL_OPEN_PROBE_ONE and #live > 0 then return nil end
  local c = list[index]
  local why = unfit(c, row, st, head, 0, true)
  verdicts[index] = why or V_CHOSEN
  if why then return nil end
  if all_open == ALL_OPEN_PROBE_ONE then c.probe = live end
  return c, index
end

local reached, first = {}, {}

-- The verdicts of a walk that ended at its first look, `index`.
local function verdict_of_first(index, n)
  local known = reached[index * 256 + n]
  if not known then
    known = string.rep('\0', index - 1) .. char(V_CHOSEN) .. string.rep('\0', n - index)
    reached[index * 256 + n] = known
  end
  return known
end

-- Where the walk looks first: the pinned candidate if it is there, else the first of the list.
local function first_look(row, pos, n, pinned)
  local found = pinned and row:find(pinned, pos, true)
  if found then
    -- Count the candidates up to there by their lengths: to unpack them would make strings.
    local at = pos
    for i = 1, n do
      if at >= found and row:sub(at, at + 7) == pinned then return at, i end
      local charges, offer = row:byte(at + 15, at + 16)
      at = at + 17 + offer + charges * CHARGE_BYTES
    end
  end
  return pos, 1
end

-- Walks pin, then candidates in their order. Returns the chosen one and its index (nil: none), the verdicts, whether a
-- breaker stood in the way, and the soonest known moment.
local function walk(row, pos, n, pinned, st, head, probes_max, all_open)
  if n > 0 then
    -- Nearly every walk ends here, so the list is made only after this.
    local at, i = first_look(row, pos, n, pinned)
    local before, c = charged, candidate_at(row, at, first)
    if not unfit(c, row, st, head, probes_max, false) then return c, i, verdict_of_first(i, n) end
    charged = before
  end
  local list, verdicts = {}, {}
  local chosen, index, broke, wait
  for i = 1, n do
    list[i], pos = candidate_at(row, pos, {})
    verdicts[i] = 0
    if pinned == list[i].id then index = i end
  end
  local start = index
  for step = start and 0 or 1, n do
    local i = step == 0 and start or step
    if verdicts[i] == 0 then
      local c = list[i]
      local why = unfit(c, row, st, head, probes_max, false)
      verdicts[i] = why or V_CHOSEN
      if not why then
        chosen, index = c, i
        break
      end
      if why == V_OPEN or why == V_PROBES or why == V_FORCED then broke = true end
      if c.wait and (not wait or c.wait < wait) then wait = c.wait end
    end
  end
  if not chosen and broke and all_open ~= ALL_OPEN_FAIL then
    chosen, index = when_all_open(list, verdicts, row, st, head, all_open)
  end
  return chosen, index, n > 0 and char(spread(verdicts)) or '', broke, wait or -1
end

-- Writes a record; the row that is asked to also renews the log's life time, whatever came of it.
local renew = false
local function audit(k, record)
  call('XADD', KEYS[k], 'MAXLEN', '~', audit_max, '*', 'r', record)
  if renew then
    call('PEXPIRE', KEYS[k], audit_ms)
    renew = false
  end
end

local RECORD = '>BBddc16BBdBc0c0'

local function refuse(k, action, decision, code, index, wait, seen, blob)
  audit(k, pack(RECORD, 1, action, now, now_us, decision, code, index, wait, #seen, seen, blob))
end

-- A breaker lets this decision through on trial: half open, and a probe lease.
local function take_probe(st, c, decision, until_ms, k_audit, blob)
  local b = st.breakers[c.id]
  if b.state == OPEN and now >= b.open_until then
    b.state, b.successes = HALF_OPEN, 0
    audit(k_audit, pack('>BBddc8', 1, AUDIT_HALF_OPENED, now, now_us, c.id) .. blob)
  end
  b.probes = c.probe
  b.probes[#b.probes + 1] = { id = decision:sub(9, 16), expires = until_ms }
  if until_ms > b.kept then b.kept = until_ms end
  st.dirty = true
end

local function lease(k, decision, until_ms)
  call('ZREMRANGEBYSCORE', KEYS[k], '-inf', now)
  call('ZADD', KEYS[k], until_ms, decision)
  if call('PTTL', KEYS[k]) < until_ms - now then call('PEXPIRE', KEYS[k], until_ms - now + 1000) end
end

-- Sliding limits are locals until the flush; leases are written now.
local function charge(decision, until_ms)
  for i = 1, charged, 3 do
    local st, o = charges[i], charges[i + 1]
    if not o then
      lease(st, decision, until_ms)
    elseif charges[i + 2] > 0 then
      sliding_charge(st, o, charges[i + 2])
    end
  end
end

local function reply(nonce, code, stamp, rest)
  return pack('>I4Bc8c0', nonce, code, stamp, rest)
end

-- The next attempt of a task: no charge, no pin, no answer to remember. What the first one reserved carries on; its
-- leases (the row's only charges) are held anew, whoever else has one.
local function next_attempt(row, pos, nonce, attempt, head, st, k_audit, k_task, k_due, decision, all_open, probes_max, lease_ms,
    job_ms, blob, record, n_leases, n_candidates)
  local there = call('GET', KEYS[k_task])
  if not there then return reply(nonce, CONFLICT, head.stamp, '') end
  local format, state, attempt_now, _, charged_ms, _, decision_now = unpack('>BBBHddc16', there)
  if format ~= 1 then error('delivery record of format ' .. format) end
  if state ~= TASK_WAITING or attempt_now ~= attempt - 1 or decision_now ~= decision then
    return reply(nonce, CONFLICT, head.stamp, '')
  end
  local leases = {}
  for i = 1, n_leases do
    leases[i] = unpack('>H', row, pos)
    call('ZCARD', KEYS[leases[i]])
    pos = pos + CHARGE_BYTES
  end
  charged, row_charges = 0, 0
  local c, index, seen, broke, wait = walk(row, pos, n_candidates, nil, st, head, probes_max, all_open)
  if not c then return reply(nonce, NONE, head.stamp, pack('>d', wait) .. seen) end
  local until_ms = now + lease_ms
  call('ZADD', KEYS[k_due], now + grace_ms, KEYS[k_task]:sub(-16))
  for i = 1, n_leases do lease(leases[i], decision, until_ms) end
  charge(decision, until_ms)
  if c.bound > 0 then lease(c.lease, decision, until_ms) end
  if c.probe then take_probe(st, c, decision, until_ms, k_audit, blob) end
  local reason = broke and BREAKER_FALLBACK or c.reason
  call('SET', KEYS[k_task], pack('>BBBHddc16c8BHc0', 1, TASK_NEW, attempt, 0, charged_ms, until_ms, decision, c.id, reason,
    #c.offer, c.offer) .. record, 'PX', job_ms)
  return pack('>I4Bc8BBBBBc0', nonce, ADMITTED, head.stamp, index - 1, reason, PIN_NONE, 0, #seen, seen)
end

local ROW = '>I4dBHHHHHHHHc8c16BBI4I4I4Hc0Hc0Hc0BBB'

local function run(row)
  local nonce, not_after, flags, k_idem, k_head, k_state, k_audit, k_pin, k_task, k_due, k_job, fingerprint, decision,
    all_open, probes_max, lease_ms, pin_ms, job_ms, blob, tail, record, attempt, n_charges, n_candidates, pos = unpack(ROW, row)
  if not_after < now or call_not_after < now then return reply(nonce, LATE, NO_STAMP, '') end
  renew = floor(flags / F_RENEW) % 2 == 1
  local head = heads[k_head] or head_at(k_head)
  if attempt > 1 then
    local st = k_state > 0 and (states[k_state] or state_at(k_state))
    return next_attempt(row, pos, nonce, attempt, head, st, k_audit, k_task, k_due, decision, all_open, probes_max, lease_ms,
      job_ms, blob, record, n_charges, n_candidates)
  end
  local remembered = call('GET', KEYS[k_idem])
  if remembered then
    if remembered:byte(1) ~= 1 then error('remembered answer of format ' .. remembered:byte(1)) end
    if remembered:sub(2, 9) == fingerprint then return reply(nonce, REPLAY, head.stamp, remembered) end
    refuse(k_audit, AUDIT_CONFLICT, decision, CONFLICT, 0, -1, '', blob)
    return reply(nonce, CONFLICT, head.stamp, '')
  end
  if head.off then
    refuse(k_audit, AUDIT_REFUSED, decision, OFF, 0, -1, '', blob)
    return reply(nonce, OFF, head.stamp, '')
  end

  -- Read and validate: nothing has been written yet.
  charged, row_charges = 0, n_charges
  local worst, wait, shadow
  pos, worst, wait, shadow = check_charges(row, pos, n_charges, 0)
  if worst then
    refuse(k_audit, AUDIT_REFUSED, decision, LIMITED, worst, wait, '', blob)
    return reply(nonce, LIMITED, head.stamp, pack('>Bd', worst, wait))
  end
  local pin = k_pin > 0 and call('GET', KEYS[k_pin])
  local pinned, pinned_at
  if pin then
    local format
    format, pinned, pinned_at = unpack('>Bc8d', pin)
    if format ~= 1 then error('pin of format ' .. format) end
  end
  local pushed = flags % 2 == F_PUSH
  if pushed and call('EXISTS', KEYS[k_job]) == 0 then error('the work item is missing') end
  local st = k_state > 0 and (states[k_state] or state_at(k_state))
  local c, index, seen, broke
  c, index, seen, broke, wait = walk(row, pos, n_candidates, pinned, st, head, probes_max, all_open)
  if not c then
    refuse(k_audit, AUDIT_REFUSED, decision, NONE, 0, wait, seen, blob)
    return reply(nonce, NONE, head.stamp, pack('>d', wait) .. seen)
  end

  -- Write: the first two calls may still fail and leave nothing that counts; after them nothing can.
  local pin_state, reason = PIN_NONE, c.reason
  if k_pin > 0 then
    if not pin then
      pin_state = PIN_NEW
    elseif pinned == c.id then
      pin_state, reason = PIN_HELD, STICKY
    else
      pin_state = PIN_LEFT
    end
  end
  if broke and reason ~= STICKY then reason = BREAKER_FALLBACK end
  local until_ms = now + lease_ms
  if pushed then call('ZADD', KEYS[k_due], now + grace_ms, KEYS[k_task]:sub(-16)) end
  audit(k_audit, pack(RECORD, 1, AUDIT_MADE, now, now_us, decision, reason, index - 1, pin_state, #seen, seen, blob))
  charge(decision, until_ms)
  if c.bound > 0 then lease(c.lease, decision, until_ms) end
  if c.probe then take_probe(st, c, decision, until_ms, k_audit, blob) end
  -- A pin in use is refreshed once it has aged by a tenth: its session outlives its TTL all the same.
  if k_pin > 0 and (pin_state ~= PIN_HELD or now - pinned_at > pin_ms / 10) then
    call('SET', KEYS[k_pin], pack('>Bc8d', 1, c.id, now), 'PX', pin_ms)
  end
  local outcome = (pushed and 1 or 0) + (reason >= FALLBACK and 2 or 0) + (flags >= F_METER and 16 or 0)
  if pushed then
    call('PEXPIRE', KEYS[k_job], job_ms)
    call('SET', KEYS[k_task],
      pack('>BBBHddc16c8BHc0', 1, TASK_NEW, 1, 0, now, until_ms, decision, c.id, reason, #c.offer, c.offer) .. record, 'PX', job_ms)
  end
  local answer
  if floor(flags / F_RESERVED) % 2 == 1 then
    answer = pack('>Bc8c4BBc0c0d', 1, fingerprint, decision:sub(13), reason, outcome + 8, c.offer, tail, now)
  else
    answer = pack('>Bc8c4BBc0c0', 1, fingerprint, decision:sub(13), reason, outcome, c.offer, tail)
  end
  call('SET', KEYS[k_idem], answer, 'PX', idem_ms)
  shadow = (shadow or '') .. (c.shadow or '')
  return pack('>I4Bc8BBBBBc0c0', nonce, ADMITTED, head.stamp, index - 1, reason, pin_state, #shadow, #seen, seen, shadow)
end

local replies = { 0, floor(now / 1000), (now % 1000) * 1000 + now_us }
for i = 2, #ARGV do
  local ok, answer = pcall(run, ARGV[i])
  if not ok then
    local text = type(answer) == 'table' and answer.err or tostring(answer)
    answer = reply(#ARGV[i] >= 4 and unpack('>I4', ARGV[i]) or 0, FAULT, NO_STAMP, text)
  end
  replies[i + 2] = answer
end
flush_states(now)
return replies
