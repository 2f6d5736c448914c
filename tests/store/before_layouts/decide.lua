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
--   audit           <schema>:{p}:<tenant>:audit         one record a row that is not a replay
--   task            <schema>:{p}:~:task:<task>          delivery record, pushed rows
--   job             <schema>:{p}:~:job:<task>           work item, set by the pod just before
--   due             <schema>:{p}:~:due                  pushed rows
--   claim           <schema>{p}<name>:claim             who prepares this request, rows that claim
--   message         <schema>{p}m<hash>                  where the decision of a message is, rows that have one
-- ARGV
--   batch           struct: I4 idempotency ms, I4 audit records kept, I4 audit ms kept, I4 publish grace ms, d not_after of
--                   the call
--   row             one a request: see store/rows.py; deduplicated KEYS are named by their index
-- RETURNS
--   0 admitted      B candidate, B reason, B pin state, B shadow count, B verdict count, verdicts, shadow charge indexes, seen
--   1 replay        the remembered value
--   2 conflict      the key came with another request
--   3 limited       B charge, d retry_after_ms (-1: never), seen
--   4 none          d retry_after_ms (-1: unknown), B verdict count, verdicts, seen
--   5 late          not_after has passed; nothing was read or written
--   6 off           the tenant is switched off
--   7 fault         text; this row wrote nothing that counts
--   8 busy          d ms: somebody else prepares this request and has so long for it (rows that claim)
--   9 unrecorded    B charge, d retry_after_ms: refused, and the tenant's quota of records is used up, so there is none
-- GUARANTEES
--   The call returns { 0, seconds, microseconds, one string a row: I4 nonce, B code, c8 stamp, then as above }.
--   A row reads and validates first and writes after: a refusal charges nothing. It runs under pcall, so a bad row gets
--   code 7 and its neighbours run; state strings are flushed whatever happened. A row that only looks takes the same way
--   and ends before the first write, but for the claim if it asks for one. "seen" is what the row saw on its way, in
--   audit records and in replies to rows that look or explain: B charges, a d each (units left before this row), B
--   candidates, a d each of the first 24 (ms until it may be fit, -1 unknown; none when the first look was good), B own
--   limits, each: B candidate, B its charge, d units left (the one that turned a candidate away, of the first 12 such, and
--   the first 12 of the chosen one); c8 the provider of a pin that was left. A tenant's quota of records is its rows' last
--   charge. It is charged by refusals, too: no window has more of both than the limit and one, and the one says since when
--   refusals are counted only. Writes of a row, in this order: due set,
--   audit, charges (locals), lease, probe, pin, job expiry, delivery record, remembered answer. A fault before the
--   charges leaves at most a due entry without a record, which the sweeper drops.
--   Every key has a TTL or a bound: see KEYS in store/keys.py.
-- Set for every call.
local KEYS, ARGV
local now, now_us
local idem_ms, audit_max, audit_ms, grace_ms, call_not_after, alive
--- @include clock
--- @include state
--- @include log
--- @include breaker
--- @include flush
local ADMITTED, REPLAY, CONFLICT, LIMITED, NONE, LATE, OFF, FAULT, BUSY, UNRECORDED = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
local V_CHOSEN, V_OPEN, V_PROBES, V_CONCURRENCY, V_LIMIT, V_FORCED, V_SLOW = 1, 2, 3, 4, 5, 7, 9
local STICKY, FALLBACK, BREAKER_FALLBACK = 3, 5, 6
local PIN_NONE, PIN_NEW, PIN_HELD, PIN_LEFT = 0, 1, 2, 3
local ALL_OPEN_FAIL, ALL_OPEN_PROBE_ONE = 0, 1
local F_PUSH, F_RESERVED, F_RENEW, F_METER, F_LOOK, F_CLAIM, F_EXPLAIN, F_MESSAGE = 1, 2, 4, 8, 16, 32, 64, 128
local C_SHADOW, C_CONCURRENCY, C_LOG, C_RECORDS = 1, 2, 4, 8
local CHARGE_BYTES = 31
local TASK_NEW, TASK_WAITING = 1, 4
local MOST_UNITS = 2 ^ 53
local AUDIT_MADE, AUDIT_REFUSED, AUDIT_CONFLICT, AUDIT_HALF_OPENED = 1, 2, 3, 13
local NO_STAMP = '\0\0\0\0\0\0\0\0'
local call, char = redis.call, string.char
local heads

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

-- What a row will charge once it is sure: state and offset (of a lease: key index and false; of a log: key index and
-- minus its window) and units, for each charge.
-- The table is used again for every row.
local charges, charged, row_charges = {}, 0, 0
-- What the row saw: units left of its charges, the moments of the candidates if it had to look at more than one, and what
-- candidates' own limits had left; see the guarantees.
local left, waits, own = {}, '\0', '\0'
local MOST_WAITS, MOST_OWN = 24, 12

-- Milliseconds until so many leases more than the next one have ended by themselves: a bound may have been lowered, and
-- next attempts take theirs beyond it.
local function lease_wait(k, more)
  return tonumber(call('ZRANGEBYSCORE', KEYS[k], alive, '+inf', 'WITHSCORES', 'LIMIT', more, 1)[2]) - now
end

-- Checks the `n` charges at `pos` and keeps them. Returns the next position, the index of the worst refusal and its wait
-- (nil when all admit), and the indexes of shadow limits that would have refused, `from` the first one's.
local function check_charges(row, pos, n, from)
  local worst, worst_wait, shadow
  local list, last = charges, charged
  for i = 0, n - 1 do
    local k, id, window, limit, units, flags, after = unpack('>Hc8I4ddB', row, pos)
    pos = after
    -- Not NaN, not below nothing: either would spoil the counter for good.
    if not (units >= 0 and units <= MOST_UNITS) then error('units of a charge') end
    local wait, st, o
    local free
    if flags >= C_LOG and flags < C_RECORDS then
      local used, entries = log_used(KEYS[k], window, now)
      free, o = limit - used, -window
      -- A full log admits no more until its oldest charge has left.
      if entries >= MOST_LOGGED and units > 0 then used = math.max(used, limit) end
      if used + units > limit then wait = log_wait(KEYS[k], limit, units, used, window, now) end
    elseif flags >= C_CONCURRENCY and flags < C_RECORDS then
      free = limit - call('ZCOUNT', KEYS[k], alive, '+inf')
      if free < units then
        wait = -1
        if units <= limit then wait = lease_wait(k, units - free - 1) end
      end
    else
      st = states[k] or state_at(k)
      o = st.at[id] or sliding_at(st, id, window, now)
      free = limit - st.v[o + SUM]
      if free < units then wait = sliding_wait(st.v, o, limit, units, now) end
    end
    left[from + i + 1] = free
    list[last + 1], list[last + 2], list[last + 3] = st or k, o or false, units
    last = last + 3
    if wait then
      if flags % 2 == C_SHADOW then
        shadow = (shadow or '') .. char(from + i)
      elseif not worst or wait < 0 or (worst_wait >= 0 and wait > worst_wait) then
        worst, worst_wait = i, wait
      end
    end
  end
  charged = last
  return pos, worst, worst_wait, shadow
end

-- Milliseconds until so many probes more than the next one have ended by themselves.
local function probes_wait(live, more)
  local ends = {}
  for i = 1, #live do ends[i] = live[i].expires end
  table.sort(ends)
  return ends[more + 1] - now
end

-- Why a candidate is not fit; nil when it is. `c` is an unpacked candidate; sets c.wait when a moment is known, and c.probe
-- when a breaker lets it through on trial. `forced`: look past the breaker. `part`: the request's own, for a slow start; nil
-- when it must not be turned away for that.
local function unfit(c, row, st, head, probes_max, forced, part)
  local verdict = head.levers and head.levers[c.id]
  if verdict then return verdict end
  local b = not forced and st and st.breakers and st.breakers[c.id]
  if b and b.state == CLOSED then
    if part and breaker_slow(b, part, now) then return V_SLOW end
  elseif b then
    if b.state == OPEN and now < b.until_ms then
      c.wait = b.until_ms - now
      return V_OPEN
    end
    local live = breaker_live_probes(b, now)
    if #live >= probes_max then
      c.wait = probes_wait(live, #live - probes_max)
      return V_PROBES
    end
    c.probe = live
  end
  if c.bound > 0 then
    local over = call('ZCOUNT', KEYS[c.lease], alive, '+inf') - c.bound
    if over >= 0 then
      c.wait = lease_wait(c.lease, over)
      return V_CONCURRENCY
    end
  end
  if c.charges > 0 then
    local before = charged
    local _, worst, wait, shadow = check_charges(row, c.pos, c.charges, row_charges)
    c.shadow = shadow
    if worst then
      charged = before
      c.limit, c.left = worst, left[row_charges + worst + 1]
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
      if not best or b.until_ms < best.until_ms then best, index = b, i end
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
local counted_doubles = {}

-- The format of a B count and so many doubles.
local function doubles(n)
  local format = counted_doubles[n]
  if not format then
    format = '>B' .. string.rep('d', n)
    counted_doubles[n] = format
  end
  return format
end

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

-- What the limit that turned a candidate away had left, of the first `told` ones.
local function limited(list, verdicts, told)
  local parts = {}
  for i = 1, told do
    if verdicts[i] == V_LIMIT and #parts < MOST_OWN then parts[#parts + 1] = pack('>BBd', i - 1, list[i].limit, list[i].left) end
  end
  return char(#parts) .. table.concat(parts)
end

-- The same, and what the limits of the chosen one had: it was looked at last, so `left` has them.
local function with_chosen(c, index)
  local n = c.charges < MOST_OWN and c.charges or MOST_OWN
  local parts = { char(own:byte(1) + n), own:sub(2) }
  for i = 0, n - 1 do parts[i + 3] = pack('>BBd', index - 1, i, left[row_charges + i + 1]) end
  return table.concat(parts)
end

-- Walks pin, then candidates in their order; those in their slow start once more when nobody else is fit. Returns the
-- chosen one and its index (nil: none), the verdicts, whether a breaker stood in the way, and the soonest known moment.
local function walk(row, pos, n, pinned, st, head, probes_max, all_open, decision)
  -- From the request's name, so that a repeat is turned away alike.
  local part = st and st.breakers and unpack('>I4', decision, 3) / 2 ^ 32
  if n > 0 then
    -- Nearly every walk ends here, so the list is made only after this.
    local at, i = first_look(row, pos, n, pinned)
    local before, c = charged, candidate_at(row, at, first)
    if not unfit(c, row, st, head, probes_max, false, pinned ~= c.id and part) then return c, i, verdict_of_first(i, n) end
    charged = before
  end
  local list, verdicts, moments = {}, {}, {}
  local chosen, index, broke, wait
  for i = 1, n do
    list[i], pos = candidate_at(row, pos, {})
    verdicts[i], moments[i] = 0, -1
    if pinned == list[i].id then index = i end
  end
  local start = index
  for step = start and 0 or 1, n do
    local i = step == 0 and start or step
    if verdicts[i] == 0 then
      local c = list[i]
      local why = unfit(c, row, st, head, probes_max, false, step > 0 and part)
      verdicts[i] = why or V_CHOSEN
      if not why then
        chosen, index = c, i
        break
      end
      if why == V_OPEN or why == V_PROBES or why == V_FORCED then broke = true end
      if c.wait then
        moments[i] = c.wait
        if not wait or c.wait < wait then wait = c.wait end
      end
    end
  end
  local told = n < MOST_WAITS and n or MOST_WAITS
  waits, own = pack(doubles(told), told, spread(moments, 1, told)), limited(list, verdicts, told)
  for i = 1, chosen and 0 or n do
    if verdicts[i] == V_SLOW and not chosen then
      local why = unfit(list[i], row, st, head, probes_max, false)
      verdicts[i] = why or V_CHOSEN
      if not why then chosen, index = list[i], i end
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

local RECORD = '>BBddc16BBdBc0Hc0Bc0c0'
local SAW_NOTHING = '\0\0\0'

-- What the row saw; see the guarantees.
local function saw(pinned)
  local n = row_charges
  local seen = pack(doubles(n), n, spread(left, 1, n)) .. waits .. own
  return pinned and seen .. pinned or seen
end

local function reply(nonce, code, stamp, rest)
  return pack('>I4Bc8c0', nonce, code, stamp, rest)
end

-- Records a refusal, or returns the answer of one that the tenant's quota leaves no record for. `pos`: of the charges.
local function refuse(nonce, stamp, row, pos, k, action, decision, code, index, wait, verdicts, seen, blob)
  local st, o
  if row_charges > 0 and row:byte(pos + row_charges * CHARGE_BYTES - 1) >= C_RECORDS then
    local k_state, id, window, limit = unpack('>Hc8I4d', row, pos + (row_charges - 1) * CHARGE_BYTES)
    st = states[k_state] or state_at(k_state)
    o = sliding_at(st, id, window, now)
    if st.v[o + SUM] > limit then
      return reply(nonce, UNRECORDED, stamp, pack('>Bd', row_charges - 1, sliding_wait(st.v, o, limit, 1, now)))
    end
  end
  audit(k, pack(RECORD, 2, action, now, now_us, decision, code, index, wait, #verdicts, verdicts, #seen, seen, 0, '', blob))
  if st then sliding_charge(st, o, 1) end
end

-- A breaker lets this decision through on trial: half open, and a probe lease.
local function take_probe(st, c, decision, until_ms, k_audit, blob)
  local b = st.breakers[c.id]
  if b.state == OPEN and now >= b.until_ms then
    b.state, b.successes = HALF_OPEN, 0
    audit(k_audit, pack('>BBddc8c16', 2, AUDIT_HALF_OPENED, now, now_us, c.id, decision) .. blob)
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
    elseif o < 0 then
      log_charge(KEYS[st], decision, charges[i + 2], -o, now)
    elseif charges[i + 2] > 0 then
      sliding_charge(st, o, charges[i + 2])
    end
  end
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
  local c, index, seen, broke, wait = walk(row, pos, n_candidates, nil, st, head, probes_max, all_open, decision)
  if not c then return reply(nonce, NONE, head.stamp, pack('>dBc0', wait, #seen, seen)) end
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

-- Whether a claim on the request stands in the way: ms it has left.
local function claimed(k, decision)
  local owner = call('GET', KEYS[k])
  if not owner or owner == decision then return nil end
  return call('PTTL', KEYS[k])
end

-- Where the decision of a message is found by the message: a field for each tenant that has one of that id.
local function index_message(k, k_head, decision)
  call('HSET', KEYS[k], KEYS[k_head]:match('}:([^:]+):head$'), decision:sub(3, 12))
  call('PEXPIRE', KEYS[k], idem_ms)
end

local function run(row)
  local nonce, not_after, flags, k_idem, k_head, k_state, k_audit, k_pin, k_task, k_due, k_job, fingerprint, decision,
    all_open, probes_max, lease_ms, pin_ms, job_ms, blob, tail, record, attempt, n_charges, n_candidates, pos = unpack(ROW, row)
  if not_after < now or call_not_after < now then return reply(nonce, LATE, NO_STAMP, '') end
  local look, claim, explain, k_message
  if flags >= F_LOOK then
    look, claim, explain = flags % (2 * F_LOOK) >= F_LOOK, flags % (2 * F_CLAIM) >= F_CLAIM, flags % (2 * F_EXPLAIN) >= F_EXPLAIN
    if flags >= F_MESSAGE then k_message, pos = unpack('>H', row, pos) end
    flags = flags % F_LOOK
  end
  renew = flags % (2 * F_RENEW) >= F_RENEW
  local head = heads[k_head] or head_at(k_head)
  if attempt > 1 then
    local st = k_state > 0 and (states[k_state] or state_at(k_state))
    return next_attempt(row, pos, nonce, attempt, head, st, k_audit, k_task, k_due, decision, all_open, probes_max, lease_ms,
      job_ms, blob, record, n_charges, n_candidates)
  end
  charged, row_charges, waits, own = 0, n_charges, '\0', '\0'
  local remembered, at, unrecorded = call('GET', KEYS[k_idem]), pos
  if remembered then
    if remembered:byte(1) ~= 1 then error('remembered answer of format ' .. remembered:byte(1)) end
    -- The other three bytes are the tenant's mark, which its answers of the first version lack.
    if remembered:sub(2, 6) == fingerprint:sub(1, 5) then return reply(nonce, REPLAY, head.stamp, remembered) end
    if not look then
      unrecorded = refuse(nonce, head.stamp, row, at, k_audit, AUDIT_CONFLICT, decision, CONFLICT, 0, -1, '', SAW_NOTHING, blob)
    end
    return unrecorded or reply(nonce, CONFLICT, head.stamp, '')
  end
  if head.off then
    if not look then
      unrecorded = refuse(nonce, head.stamp, row, at, k_audit, AUDIT_REFUSED, decision, OFF, 0, -1, '', SAW_NOTHING, blob)
    end
    return unrecorded or reply(nonce, OFF, head.stamp, '')
  end
  local busy_ms = claim and claimed(k_task, decision)
  if busy_ms then return reply(nonce, BUSY, head.stamp, pack('>d', busy_ms)) end

  -- Read and validate: nothing has been written yet.
  local worst, wait, shadow
  pos, worst, wait, shadow = check_charges(row, pos, n_charges, 0)
  if worst then
    local seen = saw()
    if not look then
      unrecorded = refuse(nonce, head.stamp, row, at, k_audit, AUDIT_REFUSED, decision, LIMITED, worst, wait, '', seen, blob)
    end
    return unrecorded or reply(nonce, LIMITED, head.stamp, pack('>Bd', worst, wait) .. (explain and seen or ''))
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
  local c, index, verdicts, broke
  c, index, verdicts, broke, wait = walk(row, pos, n_candidates, pinned, st, head, probes_max, all_open, decision)
  if not c then
    local seen = saw()
    if not look then
      unrecorded = refuse(nonce, head.stamp, row, at, k_audit, AUDIT_REFUSED, decision, NONE, 0, wait, verdicts, seen, blob)
    end
    return unrecorded or reply(nonce, NONE, head.stamp, pack('>dBc0', wait, #verdicts, verdicts) .. (explain and seen or ''))
  end
  if c.charges > 0 then own = with_chosen(c, index) end
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
  local seen = saw(pin_state == PIN_LEFT and pinned)
  shadow = (shadow or '') .. (c.shadow or '')
  local answer = pack('>I4Bc8BBBBBc0c0c0', nonce, ADMITTED, head.stamp, index - 1, reason, pin_state, #shadow, #verdicts, verdicts,
    shadow, explain and seen or '')
  if look then
    if claim then call('SET', KEYS[k_task], decision, 'PX', job_ms) end
    return answer
  end

  -- Write: the first calls may still fail and leave nothing that counts; after them nothing can.
  local until_ms = now + lease_ms
  if k_message then index_message(k_message, k_head, decision) end
  if pushed then call('ZADD', KEYS[k_due], now + grace_ms, KEYS[k_task]:sub(-16)) end
  audit(k_audit, pack(RECORD, 2, AUDIT_MADE, now, now_us, decision, reason, index - 1, pin_state, #verdicts, verdicts, #seen,
    seen, #c.offer, c.offer, blob))
  charge(decision, until_ms)
  if c.bound > 0 then lease(c.lease, decision, until_ms) end
  if c.probe then take_probe(st, c, decision, until_ms, k_audit, blob) end
  -- A pin in use is refreshed once it has aged by a tenth: a write less for most requests of a busy session.
  if k_pin > 0 and (pin_state ~= PIN_HELD or now - pinned_at > pin_ms / 10) then
    call('SET', KEYS[k_pin], pack('>Bc8d', 1, c.id, now), 'PX', pin_ms)
  end
  -- 64: the tenant's mark is in it.
  local outcome = 64 + (pushed and 1 or 0) + (reason >= FALLBACK and 2 or 0) + (flags >= F_METER and 16 or 0)
  if pushed then
    call('PEXPIRE', KEYS[k_job], job_ms)
    call('SET', KEYS[k_task],
      pack('>BBBHddc16c8BHc0', 1, TASK_NEW, 1, 0, now, until_ms, decision, c.id, reason, #c.offer, c.offer) .. record, 'PX', job_ms)
  end
  local kept
  if flags % (2 * F_RESERVED) >= F_RESERVED then
    kept = pack('>Bc8c4BBc0c0d', 1, fingerprint, decision:sub(13), reason, outcome + 8, c.offer, tail, now)
  else
    kept = pack('>Bc8c4BBc0c0', 1, fingerprint, decision:sub(13), reason, outcome, c.offer, tail)
  end
  call('SET', KEYS[k_idem], kept, 'PX', idem_ms)
  return answer
end

local function begin(keys, argv)
  KEYS, ARGV = keys, argv
  states, heads, renew = {}, {}, false
  now, now_us = server_time()
  idem_ms, audit_max, audit_ms, grace_ms, call_not_after = unpack('>I4I4I4I4d', argv[1])
  -- Arguments of commands are strings: made once.
  idem_ms, audit_max, audit_ms = tostring(idem_ms), tostring(audit_max), tostring(audit_ms)
  alive = '(' .. string.format('%.0f', now)
end

return function(keys, argv)
  begin(keys, argv)
  local replies = { 0, floor(now / 1000), (now % 1000) * 1000 + now_us }
  for i = 2, #argv do
    local ok, answer = pcall(run, argv[i])
    if not ok then
      local text = type(answer) == 'table' and answer.err or tostring(answer)
      answer = reply(#argv[i] >= 4 and unpack('>I4', argv[i]) or 0, FAULT, NO_STAMP, text)
    end
    replies[i + 2] = answer
  end
  flush_states(now)
  states, heads = nil, nil
  return replies
end
