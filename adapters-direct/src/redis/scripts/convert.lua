-- One key from one layout into the other, with its limit, in one step.
--
-- KEYS: value and tombstone of the legacy layout, hash of Dapr's, the outbox, and the lists of both layouts if the kind has
--       one.
-- ARGV: the layout to end in; the digest of a value that was looked at; the known records, as of a commit.
-- Answers what happened: 'converted', 'already', 'missing', or 'both' if the forms differ; 'carries' and the hash if it has
-- to be taken apart first; 'reserved' and the value if it has to be looked at first.

dapr.know(3)
local from, to, from_place, to_place = legacy, dapr, 1, 3
if ARGV[1] == 'legacy' then
  from, to, from_place, to_place = dapr, legacy, 3, 1
end

local source, target = from.load(from_place), to.load(to_place)
for place, state in pairs({ [from_place] = source, [to_place] = target }) do
  if state.error then
    return state.error
  elseif state.broken then
    return { 'corrupt', KEYS[place], state.broken }
  elseif state.carries then
    return { 'carries', { KEYS[place], state.version, state.carries } }
  end
end

local function is_present(state)
  return state.value or state.buried
end

-- Where the limit of an item counts: a legacy tombstone has a key of its own.
local function name_of(place, state)
  return place == 1 and state.buried and KEYS[2] or KEYS[place]
end

-- Milliseconds left, '' for ever. What carries events may note its limit itself.
local function limit_of(place, state)
  if state.left and state.left ~= '' then
    return state.left
  end
  local left = redis.call('PTTL', name_of(place, state))
  return left < 0 and '' or string.format('%.0f', math.max(left, 1))
end

-- A string where a hash belongs, which only a later write would have made one.
local is_text = target.text
if not is_present(source) and not is_text then
  return { is_present(target) and 'already' or 'missing' }
end
if is_present(source) and is_present(target) and source.value ~= target.value then
  return { 'both' }
end
local moving = is_text and target.value or not is_present(target) and source.value
if to == dapr and moving and dapr.may_reserve(moving) and redis.sha1hex(moving) ~= ARGV[2] then
  return { 'reserved', moving }
end
local lists = { [1] = KEYS[5], [3] = KEYS[6] }
for place, list in pairs(lists) do
  local listed = redis.pcall('ZSCORE', list, KEYS[place])
  if type(listed) == 'table' then
    return listed
  end
end
-- A string has no room for events; they are published from the outbox.
for _, event in ipairs(source.events or {}) do
  local added = redis.pcall('XADD', KEYS[4], '*', 'topic', event[1], 'key', event[2], 'payload', event[3])
  if type(added) == 'table' and added.err then
    return added
  end
end
if is_text then
  to.put(target, target.value, limit_of(to_place, target))
  to.apply(to_place, target)
elseif not is_present(target) and source.value then
  to.put(target, source.value, limit_of(from_place, source))
  to.apply(to_place, target)
elseif not is_present(target) then
  to.bury(target, limit_of(from_place, source))
  to.apply(to_place, target)
end
if from_place == 1 then
  redis.call('DEL', KEYS[1], KEYS[2])
else
  redis.call('DEL', KEYS[3])
end
if lists[from_place] then
  redis.call('ZREM', lists[from_place], KEYS[from_place])
end
if lists[to_place] and target.value then
  redis.call('ZADD', lists[to_place], 0, KEYS[to_place])
end
return { 'converted' }
