-- Dapr's layout: a hash with `data`, `version`, and `first-write` where somebody asked for that.
-- An item has one key. What the adapter for Dapr takes for missing is missing here, too: empty data, which are a
-- tombstone, and one zero byte, which is left where something may be created again.
-- A string is a value without a version, as it is for Dapr; its next write makes it a hash.
local dapr = { width = 1 }

-- Versions stay exact as Lua numbers below 2^53.
local MOST = 9007199254740992

-- What a deletion leaves that may be created again, and for how many milliseconds.
local LEFT, LEFT_FOR = '\0', '300000'

-- What pending events are written in where they are no member `_pending`, and such a frame that says no more than that
-- the value behind it has a limit. (`a_value_with_a_limit_is_one_for_both_adapters`)
local FRAME = '\0carried\1'
local LIMITED = FRAME .. '\0\0\0\16{"limit":"kept"}'

-- What the caller has taken apart: by name version, value or that there is none, milliseconds left, and events.
dapr.known = {}

-- Reads those from a place in ARGV on; answers the place behind them.
function dapr.know(argument)
  local count = tonumber(ARGV[argument])
  argument = argument + 1
  for _ = 1, count do
    local name, version, form, value, left, number = unpack(ARGV, argument, argument + 5)
    argument = argument + 6
    local known = { version = version, form = form, value = value, left = left, events = {} }
    for at = 1, tonumber(number) do
      known.events[at] = { unpack(ARGV, argument, argument + 2) }
      argument = argument + 3
    end
    dapr.known[name] = known
  end
  return argument
end

-- What a key holds that is no hash.
local function load_other(name, refused)
  if refused.err:sub(1, 9) ~= 'WRONGTYPE' then
    return { error = refused }
  end
  local value = redis.pcall('GET', name)
  if type(value) == 'table' then
    return { broken = 'is a ' .. redis.call('TYPE', name).ok .. ', not a hash', other = true }
  end
  if value == '' then
    return { other = true }
  end
  return { value = value, text = true, other = true }
end

-- A record that may carry events, as the caller has taken it apart, if it has taken this version.
local function load_carried(name, state, data)
  local known = dapr.known[name]
  if not known or known.version ~= state.version then
    return { carries = data, version = state.version }
  elseif known.form == 'broken' then
    return { broken = known.value, version = state.version, other = true }
  elseif known.form == 'value' then
    state.value = known.value
  end
  state.buried = known.form == 'buried'
  state.left, state.events = known.left, known.events
  return state
end

function dapr.load(key)
  local name = KEYS[key]
  local found = redis.pcall('HMGET', name, 'data', 'version', 'first-write')
  if found.err then
    return load_other(name, found)
  end
  local data, version = found[1], found[2]
  if not data and not version then
    return {}
  end
  if not data then
    return { broken = 'is a hash without data', other = true }
  end
  if not version or not version:find('^[1-9]%d*$') or #version > 16 or tonumber(version) >= MOST then
    return { broken = 'is a hash without a valid version', other = true }
  end
  local state = { version = version, first_write = found[3] }
  if data == '' then
    state.buried = true
  elseif data:sub(1, #LIMITED) == LIMITED then
    state.value = data:sub(#LIMITED + 1)
  elseif data:sub(1, #FRAME) == FRAME or data:find('"_pending"', 1, true) then
    return load_carried(name, state, data)
  elseif data ~= LEFT then
    state.value = data
  end
  return state
end

-- Whether a value may be one that is taken for something else when it is read.
function dapr.may_reserve(value)
  return value == LEFT or value:sub(1, #FRAME) == FRAME or value:find('"_pending"', 1, true)
end

function dapr.matches(state, etag)
  return dapr.etag(state) == etag
end

function dapr.etag(state)
  return state.text and redis.sha1hex(state.value) or state.version
end

-- As in Dapr, who has asked for first-write once is protected from writers without a version.
function dapr.refusal(state)
  if state.first_write then
    return 'was written first-write and can only be matched'
  end
end

-- A version that the key never had: one more, or of a new key the time in microseconds. Dapr begins at 1.
local function advance(state)
  local next
  if state.version then
    next = tonumber(state.version) + 1
  else
    local now = redis.call('TIME')
    next = now[1] * 1000000 + now[2]
  end
  state.version, state.text = string.format('%.0f', next), false
end

-- A record that has a limit, or no value, keeps no events: they go to the outbox, so that all readers find it missing at
-- once, or after its limit.
local function change(state, value, data, limit)
  advance(state)
  state.moved = state.moved or state.events and (not value or limit ~= '')
  state.value, state.data, state.limit = value, data, limit
end

-- `joined` is the value with the events that were found, if some were.
function dapr.put(state, value, limit, joined)
  state.buried = false
  change(state, value, value, limit)
  if limit ~= '' then
    state.data = LIMITED .. value
  elseif state.events and not state.moved then
    state.data = joined
  end
  return state.version
end

function dapr.bury(state, limit)
  state.buried = true
  change(state, nil, '', limit)
end

function dapr.remove(state)
  state.buried, state.first_write, state.other = false, false, true
  change(state, nil, LEFT, LEFT_FOR)
end

function dapr.apply(key, state)
  local name = KEYS[key]
  if state.other then
    redis.call('DEL', name)
  end
  redis.call('HSET', name, 'data', state.data, 'version', state.version)
  if state.limit == '' then
    redis.call('PERSIST', name)
  else
    redis.call('PEXPIRE', name, state.limit)
  end
end
