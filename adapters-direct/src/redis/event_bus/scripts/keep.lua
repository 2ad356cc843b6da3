-- Sets the idle time of entries that are ours, and where a number is given their delivery counter.
-- Answers those that belong to another consumer by now, untouched.
-- KEYS: the stream.
-- ARGV: group, our consumer, then for each entry: id, idle time (ms), deliveries (or '').
local stream, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local gone = {}
for i = 3, #ARGV, 3 do
  local id, idle, deliveries = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local pending = redis.call('XPENDING', stream, group, id, id, 1)[1]
  if pending and pending[2] ~= consumer then
    gone[#gone + 1] = id
  elseif pending and deliveries == '' then
    redis.call('XCLAIM', stream, group, consumer, 0, id, 'IDLE', idle, 'JUSTID')
  elseif pending then
    redis.call('XCLAIM', stream, group, consumer, 0, id,
      'IDLE', idle, 'RETRYCOUNT', deliveries, 'JUSTID')
  end
end
return gone
