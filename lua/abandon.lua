#!lua flags=allow-oom
-- abandon: delete a decision that will not be completed, so that its request may be tried again; end its claim
-- KEYS
--   idem            <schema>{p}<name>                   deleted if it is this decision's and not finished
--   claim           <schema>{p}<name>:claim             deleted if it is this claim
-- ARGV
--   random          the last 4 bytes of the decision_id; empty: there is no decision
--   claim_id        the claim's own decision_id
-- RETURNS
--   0 let_go        neither the claim nor an unfinished answer is left
--   1 busy          another claim is held; nothing was written
-- GUARANTEES
--   A finished answer, another decision's answer and another pod's claim stay as they are.
local FINISHED = 32
local claim = redis.call('GET', KEYS[2])
if claim and claim ~= ARGV[2] then return { 1 } end
local raw = ARGV[1] ~= '' and redis.call('GET', KEYS[1])
if raw and raw:sub(10, 13) == ARGV[1] and math.floor(raw:byte(15) / FINISHED) % 2 == 0 then
  redis.call('DEL', KEYS[1])
end
if claim then redis.call('DEL', KEYS[2]) end
return { 0 }
