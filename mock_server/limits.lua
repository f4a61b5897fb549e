-- The limiter families on counters shared by several processes: one round trip decides about all limits of a call.
--
-- KEYS: one hash a limit (a sliding log has a second key, the same name with ":log").
-- ARGV: now, forced (1: the call is refused whatever the limits say), seconds that a key lives, this process' name,
--       then 8 values a limit: family, cost, a, b, start, end, count_refused (0 or 1), check (0: count, do not ask).
--   windows and sliding_log: a = limit, b = window_s; buckets: a = burst, b = rate_per_s; concurrency: a = limit.
--   start, end: bounds of the aligned window that holds now (0 where the family has none).
-- Returns: admitted (0 or 1), then for each limit: passes (0 or 1), and the state before, as a flat list of strings.
--
-- It holds to mock_server.limits decision for decision (a property test says so). Numbers travel with 17 digits.
local now_arg, forced, ttl_s, me = tonumber(ARGV[1]), ARGV[2] == '1', tonumber(ARGV[3]), ARGV[4]
local FIELDS = { 'last', 'start', 'end', 'used', 'prev', 'level_at' }

local function text(number)
  return string.format('%.17g', number)
end

local function load(key)
  local raw = redis.call('HMGET', key, unpack(FIELDS))
  local state = {}
  for place, name in ipairs(FIELDS) do
    state[name] = tonumber(raw[place])
  end
  state.last = state.last or -math.huge
  state.used = state.used or 0
  state.prev = state.prev or 0
  return state
end

local function save(key, state)
  local pairs_ = {}
  for _, name in ipairs(FIELDS) do
    if state[name] and math.abs(state[name]) < math.huge then
      pairs_[#pairs_ + 1] = name
      pairs_[#pairs_ + 1] = text(state[name])
    end
  end
  redis.call('HSET', key, unpack(pairs_))
  redis.call('EXPIRE', key, ttl_s)
end

local function inside(state, now)
  return state.start and state.start <= now and now < state['end']
end

local family = {}

family.fixed_window = {
  passes = function(limit, state, now)
    return (inside(state, now) and state.used or 0) + limit.cost <= limit.a
  end,
  commit = function(limit, state, now)
    if not inside(state, now) then
      state.start, state['end'], state.used = limit.start, limit['end'], 0
    end
    state.used = state.used + limit.cost
  end,
}

family.anchored_window = {
  passes = function(limit, state, now)
    local used = state['end'] and now < state['end'] and state.used or 0
    return used + limit.cost <= limit.a
  end,
  commit = function(limit, state, now)
    if not state['end'] or now >= state['end'] then
      state['end'], state.used = now + limit.b, 0
    end
    state.used = state.used + limit.cost
  end,
}

local function seen(limit, state, now)
  if inside(state, now) then
    return state.start, state.used, state.prev
  end
  return limit.start, 0, state['end'] == limit.start and state.used or 0
end

family.sliding_counter = {
  passes = function(limit, state, now)
    local start, current, previous = seen(limit, state, now)
    local overlap = 1.0 - (now - start) / limit.b
    return current + previous * overlap + limit.cost <= limit.a
  end,
  commit = function(limit, state, now)
    local fresh = not inside(state, now)
    local _, current, previous = seen(limit, state, now)
    if fresh then
      state.start, state['end'] = limit.start, limit['end']
    end
    state.used, state.prev = current + limit.cost, previous
  end,
}

local function level(limit, state, now)
  if state.used == 0 then
    return 0
  end
  return math.max(0, state.used - limit.b * (now - state.level_at))
end

family.token_bucket = {
  passes = function(limit, state, now)
    return level(limit, state, now) + limit.cost <= limit.a
  end,
  commit = function(limit, state, now)
    state.used, state.level_at = level(limit, state, now) + limit.cost, now
  end,
}
family.leaky_queue = family.token_bucket

-- A list of "when cost"; used is the sum of the costs in it.
family.sliding_log = {
  passes = function(limit, state, now)
    local room = limit.a - limit.cost
    if room < 0 then
      return false
    end
    local total = state.used
    if total <= room then
      return true
    end
    local from = 0
    while true do
      local entries = redis.call('LRANGE', limit.key .. ':log', from, from + 99)
      if #entries == 0 then
        return true
      end
      for _, entry in ipairs(entries) do
        local when, cost = string.match(entry, '(%S+) (%S+)')
        total = total - tonumber(cost)
        if total <= room then
          state.leaves = tonumber(when) + limit.b
          return state.leaves <= now
        end
      end
      from = from + 100
    end
  end,
  commit = function(limit, state, now)
    local log = limit.key .. ':log'
    local function oldest()
      local entry = redis.call('LINDEX', log, 0)
      if not entry then
        return nil
      end
      local when, cost = string.match(entry, '(%S+) (%S+)')
      return tonumber(when), tonumber(cost)
    end
    local when, cost = oldest()
    while when and when + limit.b <= now do
      redis.call('LPOP', log)
      state.used = state.used - cost
      when, cost = oldest()
    end
    if not when then
      state.used = 0
    end
    redis.call('RPUSH', log, text(now) .. ' ' .. text(limit.cost))
    redis.call('EXPIRE', log, ttl_s)
    state.used = state.used + limit.cost
    when, cost = oldest()
    while redis.call('LLEN', log) > 1 and state.used - cost > limit.a do
      redis.call('LPOP', log)
      state.used = state.used - cost
      when, cost = oldest()
    end
  end,
}

-- What each process holds is a field of its own, so that the share of one that died can be taken away.
family.concurrency = {
  passes = function(limit, state)
    state.used = 0
    for _, held in ipairs(redis.call('HVALS', limit.key)) do
      state.used = state.used + tonumber(held)
    end
    return state.used + limit.cost <= limit.a
  end,
  commit = function(limit)
    redis.call('HINCRBYFLOAT', limit.key, me, text(limit.cost))
    redis.call('EXPIRE', limit.key, ttl_s)
  end,
}

local limits, answer, admitted = {}, { 0 }, not forced
for place, key in ipairs(KEYS) do
  local at = 4 + (place - 1) * 8
  local limit = {
    key = key,
    kind = ARGV[at + 1],
    cost = tonumber(ARGV[at + 2]),
    a = tonumber(ARGV[at + 3]),
    b = tonumber(ARGV[at + 4]),
    start = tonumber(ARGV[at + 5]),
    ['end'] = tonumber(ARGV[at + 6]),
    counts_refused = ARGV[at + 7] == '1',
    asks = ARGV[at + 8] == '1',
  }
  limit.state = limit.kind == 'concurrency' and { last = -math.huge, used = 0, prev = 0 } or load(key)
  limit.now = math.max(now_arg, limit.state.last)
  local passes = not limit.asks or family[limit.kind].passes(limit, limit.state, limit.now)
  admitted = admitted and passes
  limits[place] = limit
  local told = { passes and 1 or 0 }
  for _, name in ipairs(FIELDS) do
    told[#told + 1] = limit.state[name] and text(limit.state[name]) or ''
  end
  told[#told + 1] = limit.state.leaves and text(limit.state.leaves) or ''
  answer[#answer + 1] = told
end

for _, limit in ipairs(limits) do
  if admitted or limit.counts_refused then
    limit.state.leaves = nil
    family[limit.kind].commit(limit, limit.state, limit.now)
    if limit.kind ~= 'concurrency' then
      limit.state.last = limit.now
      save(limit.key, limit.state)
    end
  end
end
answer[1] = admitted and 1 or 0
return answer
