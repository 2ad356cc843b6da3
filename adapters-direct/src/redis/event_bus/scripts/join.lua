-- Fixes where a group begins, unless it is known, and answers the last entry that it was given.
-- KEYS: the stream.
-- ARGV: group, start ('$' or '0'), group to begin beside (or ''), our consumer, idle time of what is copied (ms).
local stream, group, start, beside, consumer, idle = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local function position(wanted)
  if redis.call('EXISTS', stream) == 0 then
    return nil
  end
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local info = {}
    for i = 1, #row, 2 do
      info[row[i]] = row[i + 1]
    end
    if info['name'] == wanted then
      return info['last-delivered-id']
    end
  end
  return nil
end

local known = position(group)
if known then
  return known
end
local other = nil
if beside ~= '' then
  other = position(beside)
end
redis.call('XGROUP', 'CREATE', stream, group, other or start, 'MKSTREAM')
if other then
  -- What the other group was given and has not finished is unfinished here, too.
  local from = '-'
  while true do
    local pending = redis.call('XPENDING', stream, beside, from, '+', 1000)
    for _, entry in ipairs(pending) do
      redis.call('XCLAIM', stream, group, consumer, 0, entry[1],
        'IDLE', idle, 'RETRYCOUNT', 0, 'FORCE', 'JUSTID')
      from = '(' .. entry[1]
    end
    if #pending < 1000 then
      break
    end
  end
end
return position(group)
