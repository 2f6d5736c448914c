-- Strings that the rows of a call share: commands take strings, and a number costs 1,000 instructions to convert.
--
-- The strings of settings are kept between calls, because pods of one fleet send the same settings. The strings of the
-- call's moment are made when a row first needs them: most calls take no lease.
local idem_text, audit_max_text, audit_text
local idem_known, audit_max_known, audit_known
local alive, moment

local function begin_texts()
  alive, moment = nil, nil
  if idem_ms ~= idem_known then idem_known, idem_text = idem_ms, tostring(idem_ms) end
  if audit_max ~= audit_max_known then audit_max_known, audit_max_text = audit_max, tostring(audit_max) end
  if audit_ms ~= audit_known then audit_known, audit_text = audit_ms, tostring(audit_ms) end
end

-- The lower bound of the scores of leases that still run.
local function alive_from()
  alive = alive or '(' .. string.format('%.0f', now)
  return alive
end

-- Redis time of the call, packed as stored values hold it.
local function packed_now()
  moment = moment or pack('>d', now)
  return moment
end
