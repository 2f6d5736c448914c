#!lua name=least
-- least: the commands of a full-feature decision and nothing else, on the keys and rows of lua/decide.lua
-- KEYS
--   idem            <schema>{p}<name>                   the remembered answer
--   head            <schema>:{p}:<tenant>:head          read only
--   state           <schema>:{p}:<tenant>:s             tenant limits, breakers
--   pin             <schema>:{p}:<tenant>:pin:<hash>    sticky session
--   audit           <schema>:{p}:<tenant>:audit         one record a row
-- ARGV
--   batch           layout decide_batch
--   row             layout decide_row; only the indexes of its keys are read
-- RETURNS
--   0 admitted      nothing is decided: values are constants as long as those that decide writes
-- GUARANTEES
--   As many calls of Redis as decide makes for such rows: what remains between the two is what deciding costs.
local call, pack, unpack = redis.call, struct.pack, struct.unpack
-- The state reads as three limits that count nothing: pods look at states, too. A state that is there gets its charges.
local RECORD, ANSWER, PIN = string.rep('r', 270), string.rep('a', 94), string.rep('p', 17)
local STATE, CHARGES = '\1\3' .. string.rep('\0', 396), string.rep('\0', 280)

return function(keys, argv)
  call('TIME')
  local replies, states = { 0, 0, 0 }, {}
  for i = 2, #argv do
    --- @unpack decide_row(nonce, k_idem, k_head, k_state, k_audit, k_pin) argv[i]
    call('GET', keys[k_idem])
    if not states[k_state] then
      call('GET', keys[k_head])
      states[k_state] = call('GET', keys[k_state]) and 'there' or 'new'
    end
    local pinned = call('GET', keys[k_pin])
    call('XADD', keys[k_audit], 'MAXLEN', '~', '100000', '*', 'r', RECORD)
    if not pinned then call('SET', keys[k_pin], PIN, 'PX', '600000') end
    call('SET', keys[k_idem], ANSWER, 'PX', '86400000')
    replies[i + 2] = pack('>I4B', nonce, 0)
  end
  for state, was in pairs(states) do
    if was == 'new' then
      call('SET', keys[state], STATE, 'PX', '3600000')
    else
      call('SETRANGE', keys[state], '22', CHARGES)
    end
  end
  return replies
end
