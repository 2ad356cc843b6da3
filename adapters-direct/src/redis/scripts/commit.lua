-- One commit: guards, writes, events. Either all of it takes effect or nothing.
--
-- KEYS: those of the guards, those of the writes, the lists of their kinds that have one, and the outbox if there are
--       events or known records.
-- ARGV: number of guards, number of writes, number of known records; (name, version, form, value, ms left, number
--       of events, (topic, key, payload) of each event) of each known record; (expectation, value) of each guard;
--       (mode, condition, value, limit in ms, value with known events, place of the list in KEYS) of each write;
--       (topic, key, payload) of each event.
-- A deletion's limit is '' without a tombstone, 'ever' for one that stays; a put's is '' for ever. A place is '' without a list.
--
-- Records that may carry events and are not known at their version are answered, and nothing is done: who calls takes
-- them apart and calls again.
--
-- Everything that can fail is looked at before the first write: what keys hold in `load`, lists in `find_in`, the outbox
-- by the first XADD. (`a_refused_commit_leaves_no_trace`)

-- Bytewise, because `<` asks the locale.
local function greater(a, b)
  local common, at = math.min(#a, #b), 1
  while at + 63 <= common and a:sub(at, at + 63) == b:sub(at, at + 63) do
    at = at + 64
  end
  for i = at, common do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then
      return x > y
    end
  end
  return #a > #b
end

local PUTS = { overwrite = true, create = true, match = true, raise = true }

local states, changed = {}, {}
local key, argument = 1, layout.know(3)

-- What a key holds after the writes so far.
local function state_of()
  local name = KEYS[key]
  local state = states[name]
  if not state then
    state = layout.load(key)
    states[name] = state
  end
  return state
end

-- All records that have to be taken apart.
local function carrying()
  local answer = { 'carries' }
  local first, last = key, (ARGV[1] + ARGV[2]) * layout.width
  for at = first, last, layout.width do
    key = at
    local state = state_of()
    if state.carries then
      answer[#answer + 1] = { KEYS[at], state.version, state.carries }
    end
  end
  return answer
end

-- Notes whether a key stands on its list; answers why that cannot be said.
local function find_in(list, state)
  local listed = redis.pcall('ZSCORE', list, KEYS[key])
  if type(listed) == 'table' then
    return listed
  end
  state.list, state.listed = list, listed
end

-- Why no more can be said of a key, if that is so.
local function obstacle(state, mode)
  if state.error then
    return state.error
  elseif state.carries then
    return carrying()
  elseif state.broken and mode ~= 'delete' then
    return { 'corrupt', KEYS[key], state.broken }
  end
end

for number = 1, tonumber(ARGV[1]) do
  local state = state_of()
  local stop = obstacle(state)
  if stop then
    return stop
  end
  local holds
  if ARGV[argument] == 'absent' then
    holds = not state.value
  else
    holds = state.value and not greater(state.value, ARGV[argument + 1])
  end
  if not holds then
    return { 'denied', number }
  end
  key, argument = key + layout.width, argument + 2
end

-- Why a write is refused, and whether it leaves what is there.
local function judge(state, mode, condition, value)
  if mode == 'overwrite' then
    return layout.refusal(state)
  elseif mode == 'create' then
    return state.value and 'exists' or state.buried and 'was deleted'
  elseif mode == 'match' or mode == 'delete_match' then
    return not (state.value and layout.matches(state, condition)) and 'has another version'
  elseif mode == 'raise' then
    return nil, state.value and not greater(value, state.value)
  elseif mode == 'delete_at_most' then
    return nil, state.value and greater(state.value, condition)
  end
end

local answer = { 'ok' }
for number = 1, tonumber(ARGV[2]) do
  local state = state_of()
  local mode, value, limit = ARGV[argument], ARGV[argument + 2], ARGV[argument + 3]
  local stop = obstacle(state, mode)
  if not stop and ARGV[argument + 5] ~= '' then
    stop = find_in(KEYS[tonumber(ARGV[argument + 5])], state)
  end
  if stop then
    return stop
  end
  local refusal, stays = judge(state, mode, ARGV[argument + 1], value)
  if refusal then
    return { 'conflict', number, refusal }
  end
  local etag = ''
  if PUTS[mode] then
    etag = stays and layout.etag(state) or layout.put(state, value, limit, ARGV[argument + 4])
  elseif stays then
    -- Nothing changes.
  elseif limit ~= '' then
    layout.bury(state, limit == 'ever' and '' or limit)
  elseif state.value or state.broken then
    layout.remove(state)
  else
    stays = true
  end
  if not stays and not state.changed then
    state.changed = true
    changed[#changed + 1] = key
  end
  state.broken = nil
  answer[number + 1] = etag
  key, argument = key + layout.width, argument + 6
end

local events = {}
for _, key in ipairs(changed) do
  local state = states[KEYS[key]]
  for _, event in ipairs(state.moved and state.events or {}) do
    events[#events + 1] = event
  end
end
for at = argument, #ARGV, 3 do
  events[#events + 1] = { ARGV[at], ARGV[at + 1], ARGV[at + 2] }
end
for _, event in ipairs(events) do
  local added = redis.pcall('XADD', KEYS[#KEYS], '*', 'topic', event[1], 'key', event[2], 'payload', event[3])
  if type(added) == 'table' and added.err then
    return added
  end
end
for _, key in ipairs(changed) do
  layout.apply(key, states[KEYS[key]])
end
-- Also where nothing has changed: what has ended by itself is still on the list.
for name, state in pairs(states) do
  if state.list and state.value and not state.listed then
    redis.call('ZADD', state.list, 0, name)
  elseif state.list and state.listed and not state.value then
    redis.call('ZREM', state.list, name)
  end
end
return answer
