-- record: the owner's beats of one partition. Fields and journal entries of a row go in together, or nothing does.
-- KEYS  1 generation  2 counters  3 journal  4.. one database hash per row
-- ARGV  1 generation's name  2 worker  3 number of this batch, rising in each process  4 the process; then per row:
--       epoch identity state shape, #words field value ... (the first two values, `number` and `batch`, are made here),
--       #words field ... (to be deleted; `shape` is their checksum), #words (kind id base json) ... (events in order:
--       a transition builds on `base`; a cry's id is its doubt, its base the time)
-- Returns one word per row, refusals counted:
--   closed    the generation is not open here, or not the one named
--   fenced    the hash names another owner or epoch
--   twin      another process of this very id has recorded under this epoch: an epoch belongs to the first that does
--   ahead     the hash holds a newer identity, or one the first new event does not build on
--   conflict  same identity, other state
--   accepted  written; or nothing new: a batch that arrives twice or after a later one of the same sender, counted too
local CLOCK_STEP = 10 -- seconds; the clocks of workers differ by less
local worker, batch, process, at = ARGV[2], tonumber(ARGV[3]), ARGV[4], 5
local verdicts, counts = {}, {}

local function tally(what, by) counts[what] = (counts[what] or 0) + by end

local function words()
  local first = at + 1
  at = first + tonumber(ARGV[at])
  return {first = first, last = at - 1}
end

-- A moment in the future does not count: the clock was set back.
local function later(moment, known)
  local ahead = tonumber(known) - tonumber(redis.call('TIME')[1])
  return tonumber(moment) > tonumber(known) or (moment ~= known and ahead > CLOCK_STEP)
end

-- Returns the events Redis has not accepted yet, or nil where they do not follow from what it has. Events up to the
-- hash's identity came before and their reply was lost. A hash older than the first new event's base has lost its
-- memory: under a valid epoch the row is installed.
local function fresh(key, events, identity)
  local found, known, transitions, doubt, moment = {}, identity or '', 0, nil, nil
  for i = events.first, events.last, 4 do
    local kind, id, base, json = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    if kind == 'cry' then
      if not doubt then doubt, moment = string.match(redis.call('HGET', key, 'asked') or '', '^(%S+) (%S+)$') end
      if newer(id, doubt) or (id == doubt and later(base, moment)) then
        doubt, moment, found.asked, found[#found + 1] = id, base, id .. ' ' .. base, json
      end
    elseif newer(id, known) then
      if base ~= known and not (transitions == 0 and newer(base, known)) then return nil end
      known, transitions, found[#found + 1] = id, transitions + 1, json
    end
  end
  tally('transitions', transitions)
  return found
end

local function record(key, epoch, identity, state, shape, fields, gone, events)
  local hash = redis.call('HMGET', key, 'owner', 'epoch', 'batch', 'identity', 'state', 'number', 'process')
  if hash[1] ~= worker or hash[2] ~= epoch then return 'fenced' end
  local bound = hash[7] or ''
  if string.match(bound, '^%S+') == epoch and bound ~= epoch .. ' ' .. process then return 'twin' end
  local last, last_shape = string.match(hash[3] or '', '^(%d+) (%S+)$')
  if last and (tonumber(last) or 0) >= batch then
    tally('duplicates', 1)
    return 'accepted'
  end
  if newer(hash[4], identity) then return 'ahead' end
  if (hash[4] or '') == identity and hash[5] and hash[5] ~= state then return 'conflict' end
  local new = fresh(key, events, hash[4])
  if not new then return 'ahead' end
  ARGV[fields.first + 1], ARGV[fields.first + 3] = (tonumber(hash[6]) or 0) + 1, ARGV[3] .. ' ' .. shape
  redis.call('HSET', key, unpack(ARGV, fields.first, fields.last))
  if shape ~= last_shape and gone.last >= gone.first then
    redis.call('HDEL', key, unpack(ARGV, gone.first, gone.last))
  end
  if new.asked then redis.call('HSET', key, 'asked', new.asked) end
  for _, json in ipairs(new) do redis.call('XADD', KEYS[3], '*', 'event', json) end
  tally('beats', 1)
  return 'accepted'
end

local open = open_generation(KEYS[1]) == ARGV[1]
for i = 4, #KEYS do
  local verdict = 'closed'
  if open then
    local row = at
    at = at + 4
    verdict = record(KEYS[i], ARGV[row], ARGV[row + 1], ARGV[row + 2], ARGV[row + 3], words(), words(), words())
  end
  if verdict ~= 'accepted' then tally('rejected_' .. verdict, 1) end
  verdicts[i - 3] = verdict
end
for what, by in pairs(counts) do count(KEYS[2], what, by) end
return verdicts
