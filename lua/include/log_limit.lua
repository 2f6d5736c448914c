-- An exact limit: one sorted set for each limit and owner, which remembers every charge that still counts.
--
--   charge   decision (16 bytes; of an overrun: 'o' and these 16), d units   score: Redis ms
--   total    't', d units of all charges in the set                     score: -inf
--
-- A charge at t counts in every window that contains t, both ends included: it leaves when now > t + window. The next
-- charge removes what has left. A set never holds more than MAX_LOGGED charges: the limit refuses first.
--
-- Charges that lie ahead of now date from before Redis' clock was set back. The next call merges them into one at now:
-- 'm', 16 bytes of the first of them, d units.
local MAX_LOGGED = 10000
local LOG_CHUNK = 256

local function log_units(member)
  return (unpack('>d', member, #member - 7))
end

-- Units that count now, the number of charges that have left, and the member that holds the total.
local function log_used(key, window, now)
  local total = redis.call('ZRANGE', key, 0, 0)[1]
  if not total then return 0, 0 end
  local gone = redis.call('ZRANGEBYSCORE', key, '(-inf', string.format('(%.0f', now - window))
  local used = log_units(total)
  for i = 1, #gone do used = used - log_units(gone[i]) end
  return used, #gone, total
end

-- Whether a set holds as many charges as it may. A charge has a unit at least, so most sets need not be counted.
local function log_full(key, used, gone)
  return used >= MAX_LOGGED and redis.call('ZCARD', key) - 1 - gone >= MAX_LOGGED
end

-- Merges the charges that lie ahead into one at now.
local function log_back(key, window, now)
  local after = string.format('(%.0f', now)
  local ahead = redis.call('ZRANGEBYSCORE', key, after, '+inf')
  if #ahead == 0 then return end
  local units = 0
  for i = 1, #ahead do units = units + log_units(ahead[i]) end
  redis.call('ZREMRANGEBYSCORE', key, after, '+inf')
  redis.call('ZADD', key, string.format('%.0f', now), pack('>c1c16d', 'm', ahead[1], units))
  redis.call('PEXPIRE', key, string.format('%.0f', window + 1000))
end

-- Milliseconds until `units` more are admitted; -1 when they never can be.
local function log_wait(key, limit, units, used, window, now)
  if units > limit then return -1 end
  local need, from, leaves = used + units - limit, 0, now
  repeat
    local live = redis.call('ZRANGEBYSCORE', key, string.format('%.0f', now - window), '+inf', 'WITHSCORES', 'LIMIT',
      from, LOG_CHUNK)
    for i = 1, #live, 2 do
      need, leaves = need - log_units(live[i]), tonumber(live[i + 1]) + window + 1
      if need <= 0 then return leaves - now end
    end
    from = from + LOG_CHUNK
  until #live < 2 * LOG_CHUNK
  return leaves - now
end

local function log_total(key, before, units)
  if before then redis.call('ZREM', key, before) end
  redis.call('ZADD', key, '-inf', pack('>c1d', 't', units))
end

local function log_charge(key, decision, units, window, now)
  if units <= 0 then return end
  local used, _, total = log_used(key, window, now)
  redis.call('ZREMRANGEBYSCORE', key, '(-inf', string.format('(%.0f', now - window))
  redis.call('ZADD', key, string.format('%.0f', now), decision .. pack('>d', units))
  log_total(key, total, used + units)
  redis.call('PEXPIRE', key, string.format('%.0f', window + 1000))
end

-- A charge of this decision used `delta` units more or fewer than reserved: charges the rest now, or gives back where
-- it was charged. A charge that lies ahead of now, or was merged, is not found: nothing is given back.
local function log_adjust(key, decision, charged_ms, window, delta, now)
  if delta > 0 then
    log_back(key, window, now)
    log_charge(key, 'o' .. decision, delta, window, now)
    return
  end
  if charged_ms > now then return end
  local at = string.format('%.0f', charged_ms)
  local there = redis.call('ZRANGEBYSCORE', key, at, at)
  for i = 1, #there do
    if #there[i] == 24 and there[i]:sub(1, 16) == decision then
      local units = log_units(there[i])
      local kept = math.max(0, units + delta)
      local total = redis.call('ZRANGE', key, 0, 0)[1]
      redis.call('ZREM', key, there[i])
      if kept > 0 then redis.call('ZADD', key, at, decision .. pack('>d', kept)) end
      log_total(key, total, log_units(total) + kept - units)
      return
    end
  end
end
