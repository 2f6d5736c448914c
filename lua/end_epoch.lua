#!lua flags=allow-oom
-- end_epoch: close an episode of an alert
-- KEYS
--   epochs    <schema>:epochs    see begin_epoch
-- ARGV
--   scope     condition and scope of the alert
--   epoch     which episode
-- RETURNS
--   0 ended   1: it was open; 0: it was not
-- GUARANTEES
--   An episode that is closed, and a newer one, stay as they are.
--- @include clock
local there = redis.call('HGET', KEYS[1], ARGV[1])
if there and there:match('^(%d+) 1 ') == ARGV[2] then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%d 0 %.0f', tonumber(ARGV[2]), (server_time())))
  return { 0, 1 }
end
return { 0, 0 }
