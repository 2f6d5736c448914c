-- The current row: its fields (router/store/scripts/layouts.py), its optional parts, and its reply.
--
-- The fields are locals of the script, not arguments: every step of a row reads some of the 25.
--- @names row_flags
--- @layout reply
--- @locals decide_row
--- @locals claim
--- @locals message
--- @locals failed
--- @locals steps
-- Where the first charge begins. Then the rare flags of the row, nil or true. `optional`: whether this row or the row
-- before has any of them. Most rows have none, and then nothing is reset.
local charges_at
local optional, preview, claims, explain

-- Reads the flags that few rows have, and the optional parts.
local function read_options(row)
  optional, k_message, k_steps, failed = true, nil, nil, nil
  preview, explain = flags % (2 * ROW_PREVIEW) >= ROW_PREVIEW, flags % (2 * ROW_EXPLAIN) >= ROW_EXPLAIN
  claims = flags % (2 * ROW_CLAIM) >= ROW_CLAIM
  local at = #row - extra_bytes + 1
  if claims then
    --- @assign claim row, at -> at
  end
  if flags % (2 * ROW_MESSAGE) >= ROW_MESSAGE then
    --- @assign message row, at -> at
  end
  if flags % (2 * ROW_FAILED) >= ROW_FAILED then
    --- @assign failed row, at -> at
  end
  if flags % (2 * ROW_STEPS) >= ROW_STEPS then
    --- @assign steps row, at -> at
  end
  -- Packer and script have the same version, so only a bug makes them differ.
  if at ~= #row + 1 then error('optional parts of a row') end
end

local function reply(code, stamp, rest)
  return pack(REPLY_FORMAT, nonce, code, stamp, rest)
end
