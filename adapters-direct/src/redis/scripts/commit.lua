-- One commit: guards, writes, events. Either all of it takes effect or nothing.
--
-- KEYS: those of the guards, those of the writes, and the outbox if there are events.
-- ARGV: number of guards, number of writes; (expectation, value) of each guard;
--       (mode, condition, value, limit in ms) of each write; (topic, key, payload) of each event.
-- A deletion's limit is '' without a tombstone, 'ever' for one that stays; a put's is '' for ever.
--
-- Everything that can fail is looked at before the first write: what keys hold in `load`, the outbox by the
-- first XADD. (`a_refused_commit_leaves_no_trace`)

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
local key, argument = 1, 3

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

for number = 1, tonumber(ARGV[1]) do
  local state = state_of()
  if state.error then
    return state.error
  elseif state.broken then
    return { 'corrupt', KEYS[key], state.broken }
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
  if state.error then
    return state.error
  elseif state.broken then
    return { 'corrupt', KEYS[key], state.broken }
  end
  local mode, value, limit = ARGV[argument], ARGV[argument + 2], ARGV[argument + 3]
  local refusal, stays = judge(state, mode, ARGV[argument + 1], value)
  if refusal then
    return { 'conflict', number, refusal }
  end
  local etag = ''
  if PUTS[mode] then
    etag = stays and layout.etag(state) or layout.put(state, value, limit)
  elseif stays then
    -- Nothing changes.
  elseif limit ~= '' then
    layout.bury(state, limit == 'ever' and '' or limit)
  elseif state.value then
    layout.remove(state)
  else
    stays = true
  end
  if not stays and not state.changed then
    state.changed = true
    changed[#changed + 1] = key
  end
  answer[number + 1] = etag
  key, argument = key + layout.width, argument + 4
end

for at = argument, #ARGV, 3 do
  local added = redis.pcall('XADD', KEYS[#KEYS], '*', 'topic', ARGV[at], 'key', ARGV[at + 1], 'payload', ARGV[at + 2])
  if type(added) == 'table' and added.err then
    return added
  end
end
for _, key in ipairs(changed) do
  layout.apply(key, states[KEYS[key]])
end
return answer
