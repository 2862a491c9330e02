-- What all steps share; put in front of each when it is loaded.

-- Epochs "term.counter", identities "term.counter.n" and stream ids "ms-n" compare number by
-- number: each is below 2^53, but a pair of them would not fit Lua's one double. '' and false stand
-- for none, the lowest.
local function newer(a, b)
  if not a or a == '' or a == b then return false end
  if not b or b == '' then return true end
  local right = string.gmatch(b, '%d+')
  for part in string.gmatch(a, '%d+') do
    local x, y = tonumber(part), tonumber(right() or -1)
    if x ~= y then return x > y end
  end
  return false
end

-- An instance of Redis goes by its replication id: new at every start and at every promotion, while
-- a run id comes back with a master that was demoted and promoted again. (An hour after its last
-- replica left, a master takes a new one for no such reason: then the generation closes, and is
-- opened again.)
local function is_this_instance(instance)
  local info = redis.call('INFO', 'replication')
  return string.find(info, 'master_replid:' .. instance .. '\r', 1, true) ~= nil
end

-- Returns the generation's name while it is open here: opened in this instance of this very server.
-- Race: a replica that was promoted, or a server restarted from disk, holds another instance's key.
local function open_generation(key)
  local name = redis.call('GET', key)
  local instance = string.match(name or '', '^(%x+):')
  return instance and is_this_instance(instance) and name
end

-- Returns why a leader may not act in a partition, or nil: 'foreign' where the name of another
-- registry stands beside the term, 'stale' where a higher term was seen.
local function objection(term_key, registry_key, term, registry)
  local holder = string.match(redis.call('GET', registry_key) or '', '^%S+')
  if holder and holder ~= registry then return 'foreign' end
  if tonumber(redis.call('GET', term_key) or 0) > tonumber(term) then return 'stale' end
end

local function count(counters, what, by)
  if by > 0 then redis.call('HINCRBY', counters, what, by) end
end
