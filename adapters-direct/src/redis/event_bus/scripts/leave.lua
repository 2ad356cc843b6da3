-- Removes consumers that have nothing unfinished and have not been seen for a while. Answers how many.
-- KEYS: the stream. ARGV: group, what their names begin with, time since they were seen (ms).
local removed = 0
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local info = {}
  for i = 1, #row, 2 do
    info[row[i]] = row[i + 1]
  end
  local ours = string.sub(info['name'], 1, #ARGV[2]) == ARGV[2]
  if ours and info['pending'] == 0 and info['idle'] >= tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], info['name'])
    removed = removed + 1
  end
end
return removed
