-- restore: merge what a reporter remembers into a partition of a Redis that forgot. Merging is a
-- maximum, so any order and any repetition of restores ends alike. Where the generation is open
-- already, a memory that comes late counts only if it is newer than all that happened since: its
-- owner then learns from the hash.
--
-- KEYS  1 generation  2 term  3 names  4 reports  5 registry  6.. one database hash per row
-- ARGV  1 instance the reporter reached  2 reporter  3 attempt
--       4 'first', 'middle' or 'last' part of its report  5 highest term it saw
--       6 whose that is: a worker's "name takeovers", to be merged, or a leader's bare name
--       7 #fields, then their names: the status fields and `restored`; then per row: database,
--       its claim: owner epoch ('' '' for none), identity, the values of the fields ('' for none)
-- Returns 1, or 0 where this is another instance of the server, the first part of the report is
-- gone, or the reporter leads for another registry than the one whose name stands.
--
-- Race: the report stands in the partition it is about: whatever wipes the rows wipes the report.
-- Its parts carry one attempt, so a wipe in between is noticed; each waits for the answer of the
-- one before, so a request that arrives when nobody waits for it can begin a report or end one,
-- never both.
local instance, reporter, part, names = ARGV[1], ARGV[2], ARGV[4], {}
local report = instance .. ' ' .. ARGV[3]
local registry, takeovers = string.match(ARGV[6], '^(%S+) ?(%d*)')
if not is_this_instance(instance) then return 0 end
if takeovers == '' and objection(KEYS[2], KEYS[5], math.huge, registry) then return 0 end
if part == 'first' then
  redis.call('HSET', KEYS[4], reporter, report .. ' busy')
elseif redis.call('HGET', KEYS[4], reporter) ~= report .. ' busy' then
  return 0
end
for i = 1, tonumber(ARGV[7]) do names[i] = ARGV[7 + i] end

-- By identity; on a tie the later epoch's holder knows more; then any order will do, as long as it
-- is one.
local function merge_status(key, epoch, identity, values)
  local stored = redis.call('HMGET', key, 'identity', 'state', 'restored', unpack(names))
  local text, fields, gone = {}, {}, {}
  for i, name in ipairs(names) do
    text[i] = stored[i + 3] or ''
    if values[i] == '' then
      gone[#gone + 1] = name
    else
      fields[#fields + 1] = name
      fields[#fields + 1] = values[i]
    end
  end
  local better = not stored[2] or newer(identity, stored[1])
  if not better and not newer(stored[1], identity) then
    local more = table.concat(values, '\n') > table.concat(text, '\n')
    better = newer(epoch, stored[3]) or (more and not newer(stored[3], epoch))
  end
  if not better then return end
  redis.call('HSET', key, unpack(fields))
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
end

local function merge_claim(key, owner, epoch)
  local known_owner, known_epoch = unpack(redis.call('HMGET', key, 'claim_owner', 'claim_epoch'))
  local tie = epoch ~= '' and epoch == known_epoch
  if newer(epoch, known_epoch) or (tie and owner > known_owner) then
    redis.call('HSET', key, 'claim_owner', owner, 'claim_epoch', epoch)
  end
end

-- A retired database has neither owner nor state, and stays forgotten; one without an owner may
-- just have found no worker.
local function is_news(key, identity)
  local owner, known, state = unpack(redis.call('HMGET', key, 'owner', 'identity', 'state'))
  return (owner or state) and newer(identity, known)
end

-- A take-over counts everywhere. Without one, what workers remember counts until the generation is
-- open; any order of names will do, as long as it is one.
local function merge_registry(late)
  if not registry or takeovers == '' then return end
  local known, before = string.match(redis.call('GET', KEYS[5]) or '', '^(%S+) (%d+)')
  local more = tonumber(takeovers) - tonumber(before or -1)
  if more > 0 or (more == 0 and not late and registry > known) then
    redis.call('SET', KEYS[5], ARGV[6])
  end
end

local known_term = tonumber(redis.call('GET', KEYS[2]) or 0)
if tonumber(ARGV[5]) > known_term then redis.call('SET', KEYS[2], ARGV[5]) end
local late, at = open_generation(KEYS[1]), 8 + #names
merge_registry(late)
for i = 6, #KEYS do
  local database, owner, epoch, identity = unpack(ARGV, at, at + 3)
  local values = {unpack(ARGV, at + 4, at + 3 + #names)}
  if not late then
    redis.call('SADD', KEYS[3], database)
    merge_status(KEYS[i], epoch, identity, values)
    merge_claim(KEYS[i], owner, epoch)
  elseif is_news(KEYS[i], identity) then
    merge_status(KEYS[i], epoch, identity, values)
    redis.call('HDEL', KEYS[i], 'restored')
  end
  at = at + 4 + #names
end
if part == 'last' then redis.call('HSET', KEYS[4], reporter, report .. ' done') end
return 1
