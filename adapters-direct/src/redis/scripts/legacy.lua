-- The layout of the replaced service: a string, and beside it a tombstone that it never looks at.
-- An item has two keys, the value and the tombstone. A version is the digest of its value.
-- `when_full` says that a put is done without memory left, too.
local legacy = { width = 2 }

-- Nothing travels inside a string.
function legacy.know(argument)
  return argument + 1
end

function legacy.load(key)
  local value = redis.pcall('GET', KEYS[key])
  if type(value) == 'table' and value.err:sub(1, 9) == 'WRONGTYPE' then
    return { broken = 'is a ' .. redis.call('TYPE', KEYS[key]).ok .. ', not a string' }
  elseif type(value) == 'table' then
    return { error = value }
  end
  if value and value ~= '' then
    return { value = value }
  end
  return { buried = redis.call('EXISTS', KEYS[key + 1]) == 1 }
end

function legacy.matches(state, etag)
  return redis.sha1hex(state.value) == etag
end

function legacy.etag(state)
  return redis.sha1hex(state.value)
end

-- Nobody needs more than what the mode says.
function legacy.refusal()
  return nil
end

-- Answers no version: the caller knows the value, and so its digest.
function legacy.put(state, value, limit)
  state.value, state.buried, state.limit = value, false, limit
  return ''
end

function legacy.bury(state, limit)
  state.value, state.buried, state.limit = nil, true, limit
end

function legacy.remove(state)
  state.value = nil
end

local function set(name, value, limit)
  if limit == '' then
    redis.call('SET', name, value)
  else
    redis.call('SET', name, value, 'PX', limit)
  end
end

function legacy.apply(key, state)
  local name, tombstone = KEYS[key], KEYS[key + 1]
  if state.value then
    if legacy.when_full then
      -- Only the first write of a script is refused for want of memory, and this one needs none.
      redis.call('DEL', tombstone)
    end
    set(name, state.value, state.limit)
    redis.call('DEL', tombstone)
  elseif state.buried then
    redis.call('DEL', name)
    set(tombstone, '1', state.limit)
  else
    redis.call('DEL', name, tombstone)
  end
end
