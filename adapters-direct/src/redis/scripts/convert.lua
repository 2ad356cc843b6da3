-- One key from one layout into the other, with its limit, in one step.
--
-- KEYS: value and tombstone of the legacy layout, hash of Dapr's. ARGV: the layout to end in.
-- Answers what happened: 'converted', 'already', 'missing', or 'both' if the forms differ.

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
  end
end

local function is_present(state)
  return state.value or state.buried
end

-- Where the limit of an item counts: a legacy tombstone has a key of its own.
local function name_of(place, state)
  return place == 1 and state.buried and KEYS[2] or KEYS[place]
end

-- Milliseconds left, '' for ever.
local function limit_of(place, state)
  local left = redis.call('PTTL', name_of(place, state))
  return left < 0 and '' or string.format('%.0f', math.max(left, 1))
end

if not is_present(source) then
  return { is_present(target) and 'already' or 'missing' }
end
if is_present(target) then
  if source.value ~= target.value then
    return { 'both' }
  end
elseif source.value then
  to.put(target, source.value, limit_of(from_place, source))
  to.apply(to_place, target)
else
  to.bury(target, limit_of(from_place, source))
  to.apply(to_place, target)
end
if from_place == 1 then
  redis.call('DEL', KEYS[1], KEYS[2])
else
  redis.call('DEL', KEYS[3])
end
return { 'converted' }
