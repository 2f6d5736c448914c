#!lua name=least
-- least: the commands of a full-feature decision and nothing else, on the keys and rows of lua/decide.lua
-- KEYS
--   idem            <schema>{p}<name>                   the remembered answer
--   head            <schema>:{p}:<tenant>:head          read only
--   state           <schema>:{p}:<tenant>:s             tenant limits, breakers
--   pin             <schema>:{p}:<tenant>:pin:<hash>    sticky session
--   audit           <schema>:{p}:<tenant>:audit         one record a row
-- ARGV
--   batch           as of decide
--   row             as of decide; only the indexes of its keys are read
-- RETURNS
--   0 admitted      nothing is decided: values are constants as long as those that decide writes
-- GUARANTEES
--   As many calls of Redis as decide makes for such rows: what remains between the two is what deciding costs.
local call, pack, unpack = redis.call, struct.pack, struct.unpack
local ROW = '>I4dBHHHHH'
-- The state reads as three limits that count nothing: pods look at states, too.
local RECORD, ANSWER, STATE, PIN = string.rep('r', 270), string.rep('a', 94), '\1\3' .. string.rep('\0', 396), string.rep('p', 17)

return function(keys, argv)
  call('TIME')
  local replies, states = { 0, 0, 0 }, {}
  for i = 2, #argv do
    local nonce, _, _, idem, head, state, audit, pin = unpack(ROW, argv[i])
    call('GET', keys[idem])
    if not states[state] then
      call('GET', keys[head])
      call('GET', keys[state])
      states[state] = true
    end
    local pinned = call('GET', keys[pin])
    call('XADD', keys[audit], 'MAXLEN', '~', '100000', '*', 'r', RECORD)
    if not pinned then call('SET', keys[pin], PIN, 'PX', '600000') end
    call('SET', keys[idem], ANSWER, 'PX', '86400000')
    replies[i + 2] = pack('>I4B', nonce, 0)
  end
  for state in pairs(states) do call('SET', keys[state], STATE, 'PX', '3600000') end
  return replies
end
