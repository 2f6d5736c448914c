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
--   task            <schema>:{p}:~:task:<task id>       delivery record, pushed rows
--   job             <schema>:{p}:~:job:<task id>        work item, set by the pod just before
--   due             <schema>:{p}:~:due                  pushed rows
-- ARGV
--   batch           struct: I4 idempotency ms, I4 audit records kept, I4 audit ms kept, I4 publish grace ms
--   row             one a request: see store/rows.py; deduplicated KEYS are named by their index
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
local F_PUSH, F_RESERVED = 1, 2
local C_SHADOW, C_CONCURRENCY = 1, 2
local AUDIT_MADE, AUDIT_REFUSED, AUDIT_CONFLICT, AUDIT_HALF_OPENED = 1, 2, 3, 13
local NO_STAMP = '\0\0\0\0\0\0\0\0'
local call, char, concat = redis.call, string.char, table.concat

local now, now_us = server_time()
local idem_ms, audit_max, audit_ms, grace_ms = unpack('>I4I4I4I4', ARGV[1])
local heads = {}
local audited = {}

-- Stamp, whether the tenant is on, and the operators' levers (provider entry -> verdict), read once a batch.
local function head_at(k)
  local head = heads[k]
  if head then return head end
  local raw = call('GET', KEYS[k])
  if not raw then
    head = { stamp = NO_STAMP }
  else
    local format, stamp, off, n, pos = unpack('>Bc8BH', raw)
    if format ~= 1 then error('head format ' .. format) end
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

-- The charges that start at `pos`: checks each, keeps what a charge needs, and returns the worst refusal.
local function check_charges(row, pos, n, charges, first)
  local worst, worst_wait, shadow
  for i = 1, n do
    local k, id, window, limit, units, flags
    k, id, window, limit, units, flags, pos = unpack('>Hc8I4ddB', row, pos)
    local wait
    if flags >= C_CONCURRENCY then
      if call('ZCOUNT', KEYS[k], '(' .. now, '+inf') + units > limit then
        wait = -1
        if units <= limit then
          local soonest = call('ZRANGEBYSCORE', KEYS[k], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
          wait = tonumber(soonest[2]) - now
        end
      end
      charges[#charges + 1] = k
      charges[#charges + 1] = false
      charges[#charges + 1] = units
    else
      local st = state_at(k)
      local e = sliding_at(st, id, window, now)
      if e.sum + units > limit then wait = sliding_wait(e, limit, units, now) end
      charges[#charges + 1] = st
      charges[#charges + 1] = e
      charges[#charges + 1] = units
    end
    if wait then
      if flags % 2 == C_SHADOW then
        shadow = (shadow or '') .. char(first + i - 2)
      elseif not worst or wait < 0 or (worst_wait >= 0 and wait > worst_wait) then
        worst, worst_wait = first + i - 2, wait
      end
    end
  end
  return worst, worst_wait, pos, shadow
end

-- Reads the next candidate of the walk: { id, reason, bound, lease key, position of its charges, their number, blob }.
local function candidate_at(row, pos)
  local id, reason, bound, lease, charges, blob
  id, reason, bound, lease, charges, blob, pos = unpack('>c8BI4HBBc0', row, pos)
  local c = { id, reason, bound, lease, pos, charges, blob }
  return c, pos + charges * 31
end

-- Why the candidate is not fit; nil when it is. `forced`: look past the breaker. Sets c.wait when a moment is known.
local function unfit(c, row, st, head, probes_max, forced)
  if head.levers then
    local verdict = head.levers[c[1]]
    if verdict then return verdict end
  end
  if st and not forced then
    local b = breaker_at(st, c[1])
    if b and b.state ~= CLOSED then
      if b.state == OPEN and now < b.open_until then
        c.wait = b.open_until - now
        return V_OPEN
      end
      local live = breaker_live_probes(b, now)
      if #live >= probes_max then
        c.wait = live[1].expires - now
        return V_PROBES
      end
      c.breaker, c.live = b, live
    end
  end
  if c[3] > 0 and call('ZCOUNT', KEYS[c[4]], '(' .. now, '+inf') >= c[3] then return V_CONCURRENCY end
  if c[6] > 0 then
    c.charges = {}
    local worst, wait, _, shadow = check_charges(row, c[5], c[6], c.charges, 1)
    c.shadow = shadow
    if worst then
      if wait >= 0 then c.wait = wait end
      return V_LIMIT
    end
  end
end

local function audit(k, record)
  call('XADD', KEYS[k], 'MAXLEN', '~', audit_max, '*', 'r', record)
  if not audited[k] then
    audited[k] = true
    call('PEXPIRE', KEYS[k], audit_ms)
  end
end

-- All that a breaker let through on trial: half open, and a probe lease for this decision.
local function take_probe(st, c, probe_id, until_ms, k_audit, blob)
  local b = c.breaker
  if b.state == OPEN and now >= b.open_until then
    b.state, b.successes = HALF_OPEN, 0
    audit(k_audit, pack('>BBddc8', 1, AUDIT_HALF_OPENED, now, now_us, c[1]) .. blob)
  end
  b.probes = c.live
  b.probes[#b.probes + 1] = { id = probe_id, expires = until_ms }
  if until_ms > b.keep then b.keep = until_ms end
  st.dirty = true
end

-- Charges kept by check_charges: sliding entries are locals until the flush, leases are written now.
local function charge(charges, member, expires)
  for i = 1, #charges, 3 do
    local e, units = charges[i + 1], charges[i + 2]
    if e then
      if units > 0 then sliding_charge(charges[i], e, units) end
    else
      call('ZADD', KEYS[charges[i]], expires, member)
      call('PEXPIRE', KEYS[charges[i]], expires - now + 1000)
    end
  end
end

-- Walks the candidates; returns the chosen one, its 0-based index, whether a breaker stood in the way, the wait, verdicts.
local function walk(row, pos, n, pinned, st, head, probes_max, all_open)
  local list, verdicts = {}, {}
  local chosen, index, broke, wait
  for i = 1, n do
    list[i] = false
    verdicts[i] = 0
  end
  local parsed = 0
  local function get(i)
    while parsed < i do
      parsed = parsed + 1
      list[parsed], pos = candidate_at(row, pos)
    end
    return list[i]
  end
  local function try(i)
    local c = get(i)
    local why = unfit(c, row, st, head, probes_max, false)
    if not why then
      chosen, index = c, i
      verdicts[i] = V_CHOSEN
      return true
    end
    verdicts[i] = why
    if why == V_OPEN or why == V_PROBES or why == V_FORCED then broke = true end
    if c.wait and (not wait or c.wait < wait) then wait = c.wait end
  end
  if pinned then
    for i = 1, n do
      if get(i)[1] == pinned then
        try(i)
        break
      end
    end
  end
  if not chosen then
    for i = 1, n do
      if verdicts[i] == 0 and try(i) then break end
    end
  end
  if not chosen and all_open ~= ALL_OPEN_FAIL then
    local best
    for i = 1, n do
      local b = (verdicts[i] == V_OPEN or verdicts[i] == V_PROBES) and breaker_at(st, list[i][1])
      if b and (not best or b.open_until < best.open_until) then best, index = b, i end
    end
    local live = best and breaker_live_probes(best, now)
    if best and (all_open ~= ALL_OPEN_PROBE_ONE or #live == 0) then
      local c = list[index]
      local why = unfit(c, row, st, head, probes_max, true)
      if why then
        verdicts[index] = why
      else
        chosen, broke = c, true
        verdicts[index] = V_CHOSEN
        if all_open == ALL_OPEN_PROBE_ONE then c.breaker, c.live = best, live end
      end
    end
  end
  return chosen, index, broke, wait or -1, verdicts
end

local function run(row)
  local nonce, not_after, flags, k_idem, k_head, k_state, k_audit, k_pin, k_task, k_due, k_job, fingerprint, decision,
    all_open, probes_max, lease_ms, pin_ms, job_ms, blob, tail, record, n_charges, n_candidates, pos =
    unpack('>I4dBHHHHHHHHc8c16BBI4I4I4Hc0Hc0Hc0BB', row)
  if not_after < now then return nonce, LATE, NO_STAMP end
  local head = head_at(k_head)
  local remembered = call('GET', KEYS[k_idem])
  if remembered then
    if remembered:byte(1) ~= 1 then error('remembered format ' .. remembered:byte(1)) end
    if remembered:sub(2, 9) == fingerprint then return nonce, REPLAY, head.stamp, remembered end
    audit(k_audit, pack('>BBddc16BBdB', 1, AUDIT_CONFLICT, now, now_us, decision, CONFLICT, 0, -1, 0) .. blob)
    return nonce, CONFLICT, head.stamp
  end
  if head.off then
    audit(k_audit, pack('>BBddc16BBdB', 1, AUDIT_REFUSED, now, now_us, decision, OFF, 0, -1, 0) .. blob)
    return nonce, OFF, head.stamp
  end

  -- Read and validate: nothing has been written yet.
  local charges = {}
  local worst, wait, shadow
  worst, wait, pos, shadow = check_charges(row, pos, n_charges, charges, 1)
  if worst then
    audit(k_audit, pack('>BBddc16BBdB', 1, AUDIT_REFUSED, now, now_us, decision, LIMITED, worst, wait, 0) .. blob)
    return nonce, LIMITED, head.stamp, pack('>Bd', worst, wait)
  end
  local pinned
  if k_pin > 0 then
    pinned = call('GET', KEYS[k_pin])
    if pinned and #pinned ~= 17 then error('pin of ' .. #pinned .. ' bytes') end
  end
  local pushed = flags % 2 == F_PUSH
  if pushed and call('EXISTS', KEYS[k_job]) == 0 then error('the work item is missing') end
  local st = k_state > 0 and state_at(k_state)
  local c, index, broke, verdicts
  c, index, broke, wait, verdicts =
    walk(row, pos, n_candidates, pinned and pinned:sub(2, 9), st, head, probes_max, all_open)
  local seen = n_candidates > 0 and char(spread(verdicts)) or ''
  if not c then
    audit(k_audit, pack('>BBddc16BBdB', 1, AUDIT_REFUSED, now, now_us, decision, NONE, 0, wait, #seen) .. seen .. blob)
    return nonce, NONE, head.stamp, pack('>d', wait) .. seen
  end

  -- Write: from here on nothing can fail but the first two calls, which leave nothing that counts.
  local pin_state = PIN_NONE
  local reason = c[2]
  if k_pin > 0 then
    if not pinned then pin_state = PIN_NEW
    elseif pinned:sub(2, 9) == c[1] then pin_state, reason = PIN_HELD, STICKY
    else pin_state = PIN_LEFT end
  end
  if broke and reason ~= STICKY then reason = BREAKER_FALLBACK end
  local until_ms = now + lease_ms
  if pushed then call('ZADD', KEYS[k_due], now + grace_ms, KEYS[k_task]:sub(-16)) end
  audit(k_audit, pack('>BBddc16BBdB', 1, AUDIT_MADE, now, now_us, decision, reason, index - 1, pin_state, #seen)
    .. seen .. blob)
  charge(charges, decision, until_ms)
  if c.charges then charge(c.charges, decision, until_ms) end
  if c[3] > 0 then
    call('ZADD', KEYS[c[4]], until_ms, decision)
    call('PEXPIRE', KEYS[c[4]], lease_ms + 1000)
  end
  if c.breaker then take_probe(st, c, decision:sub(9, 16), until_ms, k_audit, blob) end
  if k_pin > 0 and (pin_state ~= PIN_HELD or now - unpack('>d', pinned, 10) > pin_ms / 10) then
    call('SET', KEYS[k_pin], '\1' .. c[1] .. pack('>d', now), 'PX', pin_ms)
  end
  local outcome = (pushed and 1 or 0) + (reason >= FALLBACK and 2 or 0)
  local charged = ''
  if flags >= F_RESERVED then
    outcome = outcome + 8
    charged = pack('>d', now)
  end
  if pushed then
    call('PEXPIRE', KEYS[k_job], job_ms)
    call('SET', KEYS[k_task],
      pack('>BBBddc16c8BHc0', 1, 1, 1, now, until_ms, decision, c[1], reason, #c[7], c[7]) .. record, 'PX', job_ms)
  end
  call('SET', KEYS[k_idem],
    pack('>Bc8c4BB', 1, fingerprint, decision:sub(13, 16), reason, outcome) .. c[7] .. tail .. charged, 'PX', idem_ms)
  shadow = (shadow or '') .. (c.shadow or '')
  return nonce, ADMITTED, head.stamp, pack('>BBBBB', index - 1, reason, pin_state, #shadow, #seen) .. seen .. shadow
end

local replies = { 0, math.floor(now / 1000), (now % 1000) * 1000 + now_us }
for i = 2, #ARGV do
  local ok, nonce, code, stamp, rest = pcall(run, ARGV[i])
  if ok then
    replies[i + 2] = pack('>I4B', nonce, code) .. stamp .. (rest or '')
  else
    local text = type(nonce) == 'table' and nonce.err or tostring(nonce)
    replies[i + 2] = pack('>I4B', unpack('>I4', ARGV[i]), FAULT) .. NO_STAMP .. text
  end
end
flush_states(now)
return replies
