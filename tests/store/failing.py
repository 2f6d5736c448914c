"""Lua that makes a chosen call of a script fail."""

FAILING = """
local true_redis, calls = redis, 0
local redis = setmetatable({
  call = function(...)
    calls = calls + 1
    if calls == FAIL_AT then error({ err = 'ERR injected' }) end
    return true_redis.call(...)
  end,
}, { __index = true_redis })
"""


# A library's locals outlive its call, which begins with a look at the clock.
EACH_CALL = """
local look = server_time
server_time = function()
  calls = 0
  return look()
end
"""
