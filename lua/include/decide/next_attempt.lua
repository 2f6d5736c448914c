-- The next attempt of a task: the walk of a new request without its charges, its pin and its remembered answer.
--
-- What the first attempt reserved stays reserved. Its leases ended with it; they are taken again without a check,
-- because the task was admitted once. The attempt is made only if the delivery record still waits for it: the
-- sweepers of two pods may try at once.

-- The first attempt's moment of charging; nil when the delivery record does not wait for this attempt.
local function waiting_since()
  local record = call('GET', KEYS[k_task])
  if not record then return nil end
  local format, state, attempt_now, _, charged_ms, _, decision_now = unpack('>BBBHddc16', record)
  if format ~= 1 then error('delivery record of format ' .. format) end
  if state ~= TASK_WAITING or attempt_now ~= attempt - 1 or decision_now ~= decision then return nil end
  return charged_ms
end

local function next_attempt(row)
  local charged_ms = waiting_since()
  if not charged_ms then return reply(CONFLICT, head.stamp, '') end
  local st, pos = k_state > 0 and (states[k_state] or state_at(k_state)), charges_at
  local leases = {}
  for i = 1, n_charges do
    --- @unpack charge(k) row, pos
    -- Fails on a wrong type, before anything is written.
    call('ZCARD', KEYS[k])
    leases[i] = k
    pos = pos + CHARGE_SIZE
  end
  charged, row_charges = 0, 0
  local c, index, verdicts, broke, wait = walk(row, pos, nil, st)
  if not c then return reply(NONE, head.stamp, pack(NO_CANDIDATE_FORMAT, wait, #verdicts, verdicts)) end
  local until_ms = now + lease_ms
  add_due()
  for i = 1, n_charges do take_lease(leases[i], until_ms) end
  charge(until_ms)
  if c.bound > 0 then take_lease(c.k_lease, until_ms) end
  if c.probe then take_probe(st, c, until_ms) end
  local reason = broke and BREAKER_FALLBACK or c.reason
  write_task(c, reason, charged_ms, until_ms)
  return pack(ADMITTED_FORMAT, nonce, ADMITTED, head.stamp, index - 1, reason, PIN_NONE, 0, #verdicts, verdicts, '', '')
end
