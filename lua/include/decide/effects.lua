-- The writes of an admitted row, besides its charges and its audit record.
local MAX_STEPS = 64

-- Takes a probe lease on the candidate's breaker, which is half open from now on.
local function take_probe(st, c, until_ms)
  local b = breaker_of(st, c.entry)
  if b.state == OPEN and now >= b.until_ms then
    b.state, b.successes = HALF_OPEN, 0
    audit(pack('>BBddc8c16', 2, AUDIT_HALF_OPENED, now, now_us, c.entry, decision) .. features)
  end
  b.probes = c.probe
  b.probes[#b.probes + 1] = { id = decision:sub(9, 16), expires = until_ms }
  if until_ms > b.kept then b.kept = until_ms end
  st.dirty = true
end

-- Makes the decision findable by the id of its message (one field for each tenant that has a message of that id), and
-- as a step of its request: its own name -> format 1, Redis ms and parts of it.
local function write_indexes()
  if k_message then
    call('HSET', KEYS[k_message], KEYS[k_head]:match('}:([^:]+):head$'), decision:sub(3, 12))
    call('PEXPIRE', KEYS[k_message], idem_text)
  end
  if k_steps then
    local steps, name = KEYS[k_steps], decision:sub(3, 12)
    if call('HLEN', steps) < MAX_STEPS or call('HEXISTS', steps, name) == 1 then
      call('HSET', steps, name, pack('>Bd', 1, now + now_us / 1000))
      call('PEXPIRE', steps, idem_text)
    end
  end
end

-- Schedules the task for the sweeper, in case it is not published in time. This write comes before the audit record,
-- because it may fail. An entry without a delivery record does no harm: the sweeper drops it.
local function add_due()
  call('ZADD', KEYS[k_due], now + grace_ms, KEYS[k_task]:sub(-16))
end

-- Writes the delivery record of a new attempt; see router/store/tasks/records.py for its format.
local function write_task(c, reason, charged_ms, until_ms)
  local record = pack('>BBBHddc16c8BHc0', 1, TASK_NEW, attempt, 0, charged_ms, until_ms, decision, c.entry, reason,
    #c.offer, c.offer)
  call('SET', KEYS[k_task], record .. facts, 'PX', job_ms)
end

-- Remembers the answer for replays; see router/store/packing.py for its format and its flags.
local function remember(c, reason)
  local reserved = flags % (2 * ROW_RESERVED) >= ROW_RESERVED
  local outcome = OUTCOME_OWNED + (k_task > 0 and OUTCOME_PUSHED or 0) + (reason >= FALLBACK and OUTCOME_FALLBACK or 0)
    + (flags % (2 * ROW_METER) >= ROW_METER and OUTCOME_METER or 0) + (reserved and OUTCOME_RESERVED or 0)
  local answer = '\1' .. fingerprint .. decision:sub(13) .. char(reason, outcome) .. c.offer .. tail
  if reserved then answer = answer .. packed_now() end
  call('SET', KEYS[k_idem], answer, 'PX', idem_text)
end
