-- Redis time is the only clock: milliseconds, and microseconds of the current one. Tests replace this include.
local function server_time()
  local t = redis.call('TIME')
  local micros = tonumber(t[2])
  return tonumber(t[1]) * 1000 + math.floor(micros / 1000), micros % 1000
end
