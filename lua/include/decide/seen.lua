-- The observations of a row, for its audit record, for previews and for rows that explain:
--
--   seen   B charges, a d each: units left before this row
--          B candidates, a d each of the first 24: ms until it may be fit, -1 unknown; none when the first look chose
--          B limits of candidates, each: B candidate, B its charge, d units left: for the first 12 candidates that a
--          limit of their own turned away, that limit; and the first 12 limits of the chosen one
--          c8 provider entry of the pin that was left, or nothing; then '\1' if the caller reported it as failed
local SAW_NOTHING, MAX_OWN = '\0\0\0', 12
local waits, own = '\0', '\0'

-- By number: the format of a count and so many doubles.
local counted_doubles = setmetatable({}, {
  __index = function(formats, n)
    formats[n] = '>B' .. string.rep('d', n)
    return formats[n]
  end,
})

-- Keeps the second and the third part of a walk over the list: the waits of the first `n` candidates, and what the
-- limits had left that turned them away.
local function note_walk(list, verdicts, moments, n)
  local parts = {}
  for i = 1, n do
    local c = list[i]
    if verdicts[i] == V_LIMIT and #parts < MAX_OWN then parts[#parts + 1] = pack('>BBd', i - 1, c.limit, c.left) end
  end
  waits, own = pack(counted_doubles[n], n, spread(moments, 1, n)), char(#parts) .. table.concat(parts)
end

-- Adds the units that the limits of the chosen candidate had left. It was tried last, so `left` still has them.
local function note_chosen(c, index)
  local n = c.n_charges < MAX_OWN and c.n_charges or MAX_OWN
  local parts = { char(own:byte(1) + n), own:sub(2) }
  for i = 0, n - 1 do parts[i + 3] = pack('>BBd', index - 1, i, left[row_charges + i + 1]) end
  own = table.concat(parts)
end

-- All parts. `pin_left`: the last part, when the row left its pin.
local function seen_by_row(pin_left)
  local n = row_charges
  local seen = pack(counted_doubles[n], n, spread(left, 1, n)) .. waits .. own
  return pin_left and seen .. pin_left or seen
end
