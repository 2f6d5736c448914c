-- The values that a move changes: the delivery record of a task, and the remembered answer of a decision.
--- @names dispatched
local ANSWER_SETTLED, ANSWER_FINISHED, ANSWER_MARKED = 4, 32, 128
-- The pod that makes the call publishes the final result; after this time a sweeper does.
local PUBLISH_MS = 5000

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
