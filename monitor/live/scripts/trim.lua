-- trim: shorten a partition's journal by what every group has acknowledged; beyond the limit by
-- force.
--
-- KEYS  1 journal  2 durable  3 counters
-- ARGV  1 most entries to keep  2 forget durable identities older than this (fleet seconds)
--       3 idle milliseconds after which a consumer that owes nothing is removed
--       4.. groups that must exist before anything is trimmed
-- Returns entries trimmed because all groups had acknowledged them, entries trimmed by force.
--
-- Race: a group that has not been made yet has read nothing, so nothing goes before it exists.
-- Cost: one XINFO CONSUMERS and XPENDING per group.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[2])
if redis.call('EXISTS', KEYS[1]) == 0 then return {0, 0} end

local function pairs_of(flat)
  local map = {}
  for i = 1, #flat, 2 do map[flat[i]] = flat[i + 1] end
  return map
end

-- Returns the first id a group still needs.
local function needs(group)
  local first = redis.call('XPENDING', KEYS[1], group['name'])[2]
  return first or group['last-delivered-id']
end

local function drop_idle_consumers(name)
  for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], name)) do
    local consumer = pairs_of(flat)
    if consumer['pending'] == 0 and consumer['idle'] > tonumber(ARGV[3]) then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], name, consumer['name'])
    end
  end
end

local floor, groups, acknowledged = nil, {}, 0
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = pairs_of(flat)
  local first = needs(group)
  groups[group['name']] = true
  if not floor or newer(floor, first) then floor = first end
  drop_idle_consumers(group['name'])
end
for i = 4, #ARGV do
  if not groups[ARGV[i]] then floor = nil end
end
if floor then acknowledged = redis.call('XTRIM', KEYS[1], 'MINID', floor) end
local forced = redis.call('XTRIM', KEYS[1], 'MAXLEN', ARGV[1])
count(KEYS[3], 'trimmed', acknowledged)
count(KEYS[3], 'trimmed_unacknowledged', forced)
return {acknowledged, forced}
