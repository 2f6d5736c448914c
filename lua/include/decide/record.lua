-- The audit records of decisions.
--
--   field r  B format = 2, B action, d Redis ms, d microseconds of it, c16 decision, B code, B index, d wait, Bc0
--            verdicts, Hc0 seen, Bc0 offer, msgpack of domain.audit.records.DecisionFeatures
--
-- A tenant's quota of audit records is its rows' last charge. Refusals are charged to it too. A window holds at most
-- limit + 1 of admissions and refusals together: the last record of a window says since when refusals are not
-- recorded.
local RECORD = '>BBddc16BBdBc0Hc0Bc0c0'
local AUDIT_MADE, AUDIT_REFUSED, AUDIT_CONFLICT, AUDIT_HALF_OPENED = 1, 2, 3, 13
local renew

-- Writes a record. A row with the flag for it renews the log's TTL with its first record, whatever its outcome.
local function audit(record)
  call('XADD', KEYS[k_audit], 'MAXLEN', '~', audit_max, '*', 'r', record)
  if renew then
    call('PEXPIRE', KEYS[k_audit], audit_ms)
    renew = false
  end
end

-- The state and offset of the tenant's quota of records and its limit; nil when it has none.
local function record_quota(row)
  local last = charges_at + (row_charges - 1) * CHARGE_SIZE
  if row_charges == 0 or row:byte(last + CHARGE_AT_OPTIONS) % (2 * CHARGE_RECORDS) < CHARGE_RECORDS then return nil end
  --- @unpack charge(k, id, window_ms, limit) row, last
  local st = states[k] or state_at(k)
  return st, sliding_at(st, id, window_ms, now), limit
end

-- Ends a row that is refused: records it and returns its reply. A preview records nothing. `rest`: of the reply.
local function refuse(row, action, code, index, wait, verdicts, seen, rest)
  if preview then return reply(code, head.stamp, rest) end
  local st, o, limit = record_quota(row)
  if st and st.v[o + SUM] > limit then
    return reply(UNRECORDED, head.stamp, pack(LIMITED_FORMAT, row_charges - 1, sliding_wait(st.v, o, limit, 1, now)))
  end
  audit(pack(RECORD, 2, action, now, now_us, decision, code, index, wait, #verdicts, verdicts, #seen, seen, 0, '',
    features))
  if st then sliding_charge(st, o, 1) end
  return reply(code, head.stamp, rest)
end
