#!lua flags=allow-oom
-- trim_audit: cut a tenant's audit log by age, and report what became of it since the last call
-- KEYS
--   audit           <schema>:{p}:<tenant>:audit         the oldest entries go; a log without a TTL gets one
--   audit_marks     <schema>:{p}:<tenant>:am            what the last call saw, how far the export has read
--   retain          <schema>:{p}:~:retain               when the tenant is due next
-- ARGV
--   tenant          its name, as it is in the set
--   age_ms          older entries go
--   max_len         the bound that writers keep
--   max_cut         entries to cut in one call, about
--   ttl_ms          life time of the marks, and of a log that has none
--   check_ms        the tenant is due again after so long at the latest …
--   full_ms         … and after so long when the log is at its bound
--   keep_unread     1: entries that the export has not read are kept
-- RETURNS
--   0 trimmed       entries left, ms of the oldest (0: none), appended since the last call, cut now for their age,
--                   cut before by the bound inside their age, not read by the export, lost to the export, 1 when at
--                   the bound
--   1 gone          there is no log; the set has forgotten the tenant
-- GUARANTEES
--   A call cuts at most about `max_cut` entries; the rest is due at once. Runs when Redis is out of memory, because
--   cutting frees it. What was cut inside its age is exact, except for entries cut before the first call.
--- @include clock
local tenant, age, max_len, max_cut, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local check, full_check, keep_unread = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == '1'
local call = redis.call

if call('EXISTS', KEYS[1]) == 0 then
  call('ZREM', KEYS[3], tenant)
  call('UNLINK', KEYS[2])
  return { 1 }
end

local function number(ms) return string.format('%.0f', ms) end
local function ms_of(id) return tonumber(id:match('^%d+')) end

local info, stream = call('XINFO', 'STREAM', KEYS[1]), {}
for i = 1, #info, 2 do stream[info[i]] = info[i + 1] end
local now = server_time()
local added = stream['entries-added']
local removed = added - stream.length
local marks = call('HMGET', KEYS[2], 'added', 'removed', 'exported', 'position')
local was_added, was_removed = tonumber(marks[1] or added), tonumber(marks[2] or removed)
local exported, position = marks[3] or '0-0', tonumber(marks[4] or removed)
-- The log is a new one since the last call.
if added < was_added then was_added, was_removed, position = 0, 0, removed end

local first = stream['first-entry']
local oldest = first and ms_of(first[1]) or 0
local young = first and oldest > now - age
local inside = young and removed - was_removed or 0
local full = stream.length >= max_len and removed > 0 and young

local lost, unread = 0, 0
if keep_unread then
  lost = math.max(0, removed - position)
  position = position + lost
  unread = added - position
else
  -- No export reads now: what is cut is not lost to an export that begins later.
  position = math.max(position, removed)
end

-- Whole nodes first, with a bound; the rest of one node only when that did not stop at the bound.
local cut = 0
if oldest > 0 and oldest < now - age then
  local keep_from = number(now - age)
  if keep_unread and ms_of(exported) < now - age then
    local ms, seq = exported:match('^(%d+)-(%d+)$')
    keep_from = ms .. '-' .. number(tonumber(seq) + 1)
  end
  cut = call('XTRIM', KEYS[1], 'MINID', '~', keep_from, 'LIMIT', max_cut)
  if cut < max_cut / 2 then cut = cut + call('XTRIM', KEYS[1], 'MINID', keep_from) end
  local rest = call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  oldest = rest and ms_of(rest[1]) or 0
end

local due = now + (full and full_check or check)
if cut >= max_cut / 2 then
  due = now
elseif oldest > 0 and oldest + age > now then
  due = math.min(due, oldest + age + 1)
end
if call('PTTL', KEYS[1]) == -1 then call('PEXPIRE', KEYS[1], ttl) end
call('HSET', KEYS[2], 'added', number(added), 'removed', number(removed + cut), 'position', number(position))
call('PEXPIRE', KEYS[2], ttl)
call('ZADD', KEYS[3], number(due), tenant)
return { 0, stream.length - cut, oldest, added - was_added, cut, inside, unread, lost, full and 1 or 0 }
