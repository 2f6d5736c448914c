-- The walk: pinned candidate first, then all in their order, until one is fit.
--
-- A candidate is fit when no lever forbids it, its breaker admits, its bound has room, and its own limits admit. Most
-- walks end at the first candidate that they try. So the first candidate is read into a table that every row uses
-- again, and the list of all candidates is made only when the first is not fit.
--- @layout candidate
local ALL_OPEN_FAIL, ALL_OPEN_PROBE_ONE = 0, 1
local MAX_WAITS = 24

-- Milliseconds until `more` + 1 probes have ended by themselves.
local function probes_wait(live, more)
  local ends = {}
  for i = 1, #live do ends[i] = live[i].expires end
  table.sort(ends)
  return ends[more + 1] - now
end

-- The verdict against candidate `c`; nil when it is fit. Sets c.wait when it is known when the candidate may be fit,
-- and c.probe (the probes that are out) when its breaker admits the row as a probe. `max_probes`: nil to look past
-- the breaker. `part`: the request's own number in [0, 1) for a slow start; nil or false: a slow start does not
-- matter.
local function unfit(c, row, st, max_probes, part)
  local verdict = head.levers and head.levers[c.entry]
  if verdict then return verdict end
  local b = max_probes and st and st.breakers and breaker_of(st, c.entry)
  if b and b.state == CLOSED then
    if part and breaker_slow(st, b, part, now) then return V_SLOW end
  elseif b then
    breaker_back(st, b, now)
    if b.state == OPEN and now < b.until_ms then
      c.wait = b.until_ms - now
      return V_OPEN
    end
    local live = breaker_live_probes(b, now)
    if #live >= max_probes then
      c.wait = probes_wait(live, #live - max_probes)
      return V_PROBES
    end
    c.probe = live
  end
  if c.bound > 0 then
    local over = call('ZCOUNT', KEYS[c.k_lease], alive_from(), '+inf') - c.bound
    if over >= 0 then
      c.wait = lease_wait(c.k_lease, over)
      return V_CONCURRENCY
    end
  end
  if c.n_charges > 0 then
    local before = charged
    local _, worst, wait, shadow = check_charges(row, c.charges_at, c.n_charges, row_charges)
    c.shadow = shadow
    if worst then
      charged = before
      c.limit, c.left = worst, left[row_charges + worst + 1]
      if wait >= 0 then c.wait = wait end
      return V_LIMIT
    end
  end
end

-- Reads the candidate at `pos` into table `c`; returns it and the position behind it.
local function candidate_at(row, pos, c)
  local after
  --- @assign candidate into c row, pos -> after
  c.charges_at, c.wait, c.probe, c.shadow = after, nil, nil, nil
  return c, after + c.n_charges * CHARGE_SIZE
end

-- Position and index of the candidate to try first: the pinned one if the list has it, else the first.
local function first_look(row, pos, pinned)
  local found = pinned and row:find(pinned, pos, true)
  if found then
    -- Counts the candidates before it by their sizes: to unpack them would create strings.
    local at = pos
    for i = 1, n_candidates do
      if at >= found and row:sub(at, at + 7) == pinned then return at, i end
      local n, offer = row:byte(at + CANDIDATE_AT_N_CHARGES, at + CANDIDATE_AT_OFFER)
      at = at + CANDIDATE_SIZE + offer + n * CHARGE_SIZE
    end
  end
  return pos, 1
end

local first = {}

-- The verdicts of walks that ended at the candidate tried first, by number of candidates, then by index of the chosen
-- one.
local first_verdicts = setmetatable({}, {
  __index = function(by_size, n)
    by_size[n] = {}
    for i = 1, n do by_size[n][i] = string.rep('\0', i - 1) .. char(V_CHOSEN) .. string.rep('\0', n - i) end
    return by_size[n]
  end,
})

-- Every breaker refuses: the policy may send one probe, or everything, to the provider whose breaker is due first.
local function when_all_open(list, verdicts, row, st)
  local best, index
  for i = 1, #list do
    if verdicts[i] == V_OPEN or verdicts[i] == V_PROBES then
      local b = breaker_of(st, list[i].entry)
      if not best or b.until_ms < best.until_ms then best, index = b, i end
    end
  end
  if not best then return nil end
  local live = breaker_live_probes(best, now)
  if all_open == ALL_OPEN_PROBE_ONE and #live > 0 then return nil end
  local c = list[index]
  local why = unfit(c, row, st)
  verdicts[index] = why or V_CHOSEN
  if why then return nil end
  if all_open == ALL_OPEN_PROBE_ONE then c.probe = live end
  return c, index
end

-- Tries the candidates in their slow start again, because no other candidate is fit.
local function slow_start(list, verdicts, row, st)
  for i = 1, #list do
    if verdicts[i] == V_SLOW then
      local why = unfit(list[i], row, st, probes_max)
      verdicts[i] = why or V_CHOSEN
      if not why then return list[i], i end
    end
  end
end

-- The walk over the whole list. Returns the chosen candidate and its index (nil: none), the verdicts, whether a
-- breaker turned a candidate away, and the shortest known wait (-1: unknown).
local function walk_all(row, pos, pinned, st, part)
  local n, list, verdicts, moments = n_candidates, {}, {}, {}
  local chosen, index, broke, wait
  for i = 1, n do
    list[i], pos = candidate_at(row, pos, {})
    verdicts[i], moments[i] = 0, -1
    if pinned == list[i].entry then index = i end
  end
  local start = index
  for step = start and 0 or 1, n do
    local i = step == 0 and start or step
    if verdicts[i] == 0 then
      local c = list[i]
      local why = unfit(c, row, st, probes_max, step > 0 and part)
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
  note_walk(list, verdicts, moments, n < MAX_WAITS and n or MAX_WAITS)
  if not chosen then chosen, index = slow_start(list, verdicts, row, st) end
  if not chosen and broke and all_open ~= ALL_OPEN_FAIL then chosen, index = when_all_open(list, verdicts, row, st) end
  return chosen, index, n > 0 and char(spread(verdicts)) or '', broke, wait or -1
end

-- Chooses a candidate; returns as `walk_all` does. `pos`: of the first candidate; `pinned`: the entry that the
-- session's pin names.
local function walk(row, pos, pinned, st)
  -- Derived from the request's name, so that a repeated request gets the same result.
  local part = st and st.breakers and unpack('>I4', decision, 3) / 2 ^ 32
  if n_candidates > 0 then
    local at, i = first_look(row, pos, pinned)
    local before, c = charged, candidate_at(row, at, first)
    local why = unfit(c, row, st, probes_max, pinned ~= c.entry and part)
    if not why then return c, i, first_verdicts[n_candidates][i] end
    charged = before
  end
  return walk_all(row, pos, pinned, st, part)
end
