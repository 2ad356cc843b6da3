-- Moves an entry to the dead-letter stream, unless another consumer has it.
-- KEYS: the stream, the dead-letter stream.
-- ARGV: group, our consumer, id, 'first' or 'repeated', then the fields of the dead letter.
local id = ARGV[3]
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
if pending and pending[2] ~= ARGV[2] then
  return 0
end
-- One that nobody has was buried before, or it was removed from the stream or the group's list: then
-- ours is the last copy.
if not pending and ARGV[4] ~= 'first' then
  return 0
end
-- Written first: a script that fails here has not finished the entry.
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 5))
redis.call('XACK', KEYS[1], ARGV[1], id)
return 1
