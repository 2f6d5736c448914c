-- The head of a tenant. Every script that reads a head reads it here.
--
--   head    B format = 1, I4 revision, c4 random (the two are the stamp), B off, H levers, then each lever
--   lever   c8 provider entry, B verdict (6 drained, 7 forced open)
--
-- The stamp names what a pod must know of the tenant: a pod whose stamp differs reads head and policies again. The
-- revision grows with every change of a policy; the random half changes with every act.
local HEAD_SIZE, LEVER_SIZE = 12, 9

-- Stamp, switch (1: off), and the number of levers. Fails on a foreign format.
local function read_head(raw)
  local format, stamp, off, n_levers = struct.unpack('>Bc8BH', raw)
  if format ~= 1 then error('head of format ' .. format) end
  return stamp, off, n_levers
end
