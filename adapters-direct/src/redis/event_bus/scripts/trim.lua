-- Removes entries that every group of the stream has finished, but for the newest ones. Answers how many.
-- KEYS: the stream. ARGV: how many entries stay at least.

-- Whether one id comes before another; as text, because numbers of Lua are exact to 2^53 only.
local function before(one, other)
  local one_ms, one_seq = string.match(one, '^(%d+)-(%d+)$')
  local other_ms, other_seq = string.match(other, '^(%d+)-(%d+)$')
  local function less(a, b)
    return #a < #b or (#a == #b and a < b)
  end
  return less(one_ms, other_ms) or (one_ms == other_ms and less(one_seq, other_seq))
end

local excess = redis.call('XLEN', KEYS[1]) - tonumber(ARGV[1])
if excess <= 0 then
  return 0
end
local first = nil
for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local info = {}
  for i = 1, #row, 2 do
    info[row[i]] = row[i + 1]
  end
  local unfinished = info['last-delivered-id']
  if info['pending'] > 0 then
    local lowest = redis.call('XPENDING', KEYS[1], info['name'])[2]
    -- A copied or taken back group has unfinished entries beyond what it was given.
    if before(lowest, unfinished) then
      unfinished = lowest
    end
  end
  if not first or before(unfinished, first) then
    first = unfinished
  end
end
if not first then
  return 0
end
return redis.call('XTRIM', KEYS[1], 'MINID', '~', first, 'LIMIT', excess)
