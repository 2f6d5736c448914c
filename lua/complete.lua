#!lua flags=allow-oom
-- complete: finish a decision: its last step is done; add what that step adds to the answer, and end its claim
-- KEYS
--   idem            <schema>{p}<name>                   the remembered answer
--   claim           <schema>{p}<name>:claim             deleted if it is this claim
-- ARGV
--   random          the last 4 bytes of the decision_id
--   claim_id        the claim's own decision_id
--   metadata        msgpack, appended to the answer; empty: none
-- RETURNS
--   0 done          also when it was done before
--   1 gone          another answer is remembered, or none; nothing was written
-- GUARANTEES
--   A reader sees the answer as unfinished, or whole. Its life time stays as it was.
local FINISHED = 32
local raw = redis.call('GET', KEYS[1])
if not raw or raw:sub(10, 13) ~= ARGV[1] then return { 1 } end
if raw:byte(1) ~= 1 then error('remembered answer of format ' .. raw:byte(1)) end
local flags = raw:byte(15)
if math.floor(flags / FINISHED) % 2 == 0 then
  redis.call('SET', KEYS[1], raw:sub(1, 14) .. string.char(flags + FINISHED) .. raw:sub(16) .. ARGV[3], 'KEEPTTL')
end
if redis.call('GET', KEYS[2]) == ARGV[2] then redis.call('DEL', KEYS[2]) end
return { 0 }
