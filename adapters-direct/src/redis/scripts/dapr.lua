-- Dapr's layout: a hash with `data`, `version`, and `first-write` where somebody asked for that.
-- An item has one key. Empty data are a tombstone: every reader, also Dapr's, sees a missing value.
local dapr = { width = 1 }

-- Versions stay exact as Lua numbers below 2^53.
local MOST = 9007199254740992

function dapr.load(key)
  local found = redis.pcall('HMGET', KEYS[key], 'data', 'version', 'first-write')
  if found.err then
    return { error = found }
  end
  local data, version = found[1], found[2]
  if not data and not version then
    return {}
  end
  if not data then
    return { broken = 'is a hash without data' }
  end
  if not version or not version:find('^[1-9]%d*$') or #version > 16 or tonumber(version) >= MOST then
    return { broken = 'is a hash without a valid version' }
  end
  local state = { there = true, version = version, first_write = found[3] }
  if data == '' then
    state.buried = true
  else
    state.value = data
  end
  return state
end

function dapr.matches(state, etag)
  return state.version == etag
end

function dapr.etag(state)
  return state.version
end

-- As in Dapr, who has asked for first-write once is protected from writers without a version.
function dapr.refusal(state)
  if state.first_write then
    return 'was written first-write and can only be matched'
  end
end

-- A version that the key never had: one more, or of a new key the time in microseconds. Dapr begins at 1.
local function advance(state)
  local next = state.version and tonumber(state.version) + 1 or 0
  if not state.there then
    local now = redis.call('TIME')
    next = math.max(next, now[1] * 1000000 + now[2])
  end
  state.there = true
  state.version = string.format('%.0f', next)
end

function dapr.put(state, value, limit)
  advance(state)
  state.value, state.buried, state.limit = value, false, limit
  return state.version
end

function dapr.bury(state, limit)
  advance(state)
  state.value, state.buried, state.limit = nil, true, limit
end

function dapr.remove(state)
  state.value, state.first_write, state.there = nil, false, false
  state.removed = true
end

function dapr.apply(key, state)
  local name = KEYS[key]
  if state.removed then
    redis.call('DEL', name)
  end
  if state.value or state.buried then
    redis.call('HSET', name, 'data', state.value or '', 'version', state.version)
    if state.limit == '' then
      redis.call('PERSIST', name)
    else
      redis.call('PEXPIRE', name, state.limit)
    end
  end
end
