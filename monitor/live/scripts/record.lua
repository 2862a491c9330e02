-- record: the owner's beats of one partition. A row's fields and its journal entries go in
-- together, or nothing of it does.
--
-- KEYS  1 generation  2 counters  3 journal  4.. one database hash per row
-- ARGV  1 generation's name  2 worker  3 number of this batch, rising in each process
--       4 the process; then per row:
--       epoch identity state checksum (of the names of the fields to delete)
--       #args field value ...         to set; the first two values, of `number` and `batch`, are
--                                     made here
--       #args field ...               to delete
--       #args (kind id base json) ... events in order: a transition builds on `base`; the id of a
--                                     cannot_reach is its doubt, its base the time
--
-- Returns one reply per row, refusals counted:
--   closed    the generation is not open here, or not the one named
--   fenced    the hash names another owner or epoch
--   twin      another process of this very id has recorded under this epoch: an epoch belongs to
--             the first that does
--   ahead     the hash holds a newer identity, or one the first new event does not build on
--   conflict  same identity, other state
--   accepted  written; or nothing new: a batch that arrives twice or after a later one of the same
--             sender, counted too
--
-- Race: a call that timed out at its sender may run long after: in another generation (closed),
-- under another owner (fenced), or after later batches of the same process (dropped by `batch`).
-- Cost: INFO replication and GET once a call; per row HMGET, HSET, and HDEL only where other fields
-- than last time go. A checksum stands for their names: comparing it is cheaper than deleting.
local CLOCK_STEP = 10 -- seconds; the clocks of workers differ by less
local worker, batch, process, at = ARGV[2], tonumber(ARGV[3]), ARGV[4], 5
local replies, counts = {}, {}

local function tally(what, by) counts[what] = (counts[what] or 0) + by end

-- Returns where the next counted list of arguments stands.
local function list()
  local first = at + 1
  at = first + tonumber(ARGV[at])
  return {first = first, last = at - 1}
end

-- A moment in the future does not count: the clock was set back.
local function later(moment, known)
  local ahead = tonumber(known) - tonumber(redis.call('TIME')[1])
  return tonumber(moment) > tonumber(known) or (moment ~= known and ahead > CLOCK_STEP)
end

-- Returns the events Redis has not accepted yet, or nil where they do not follow from what it has.
-- Events up to the hash's identity came before and their reply was lost. A hash older than the
-- first new event's base has lost its memory: under a valid epoch the row is installed.
local function fresh(key, events, identity)
  local found, known, transitions, doubt, moment = {}, identity or '', 0, nil, nil
  for i = events.first, events.last, 4 do
    local kind, id, base, json = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    if kind == 'cannot_reach' then
      if not doubt then
        local asked = redis.call('HGET', key, 'asked') or ''
        doubt, moment = string.match(asked, '^(%S+) (%S+)$')
      end
      if newer(id, doubt) or (id == doubt and later(base, moment)) then
        doubt, moment = id, base
        found.asked, found[#found + 1] = id .. ' ' .. base, json
      end
    elseif newer(id, known) then
      if base ~= known and not (transitions == 0 and newer(base, known)) then return nil end
      known, transitions, found[#found + 1] = id, transitions + 1, json
    end
  end
  tally('transitions', transitions)
  return found
end

local function record(key, epoch, identity, state, checksum, fields, gone, events)
  local hash = redis.call(
    'HMGET', key, 'owner', 'epoch', 'batch', 'identity', 'state', 'number', 'process')
  local owner, known_epoch, last, known, known_state, number, holder = unpack(hash)
  if owner ~= worker or known_epoch ~= epoch then return 'fenced' end
  holder = holder or ''
  if string.match(holder, '^%S+') == epoch and holder ~= epoch .. ' ' .. process then
    return 'twin'
  end
  local last_batch, last_checksum = string.match(last or '', '^(%d+) (%S+)$')
  if last_batch and (tonumber(last_batch) or 0) >= batch then
    tally('duplicates', 1)
    return 'accepted'
  end
  if newer(known, identity) then return 'ahead' end
  if (known or '') == identity and known_state and known_state ~= state then return 'conflict' end
  local new = fresh(key, events, known)
  if not new then return 'ahead' end
  ARGV[fields.first + 1] = (tonumber(number) or 0) + 1
  ARGV[fields.first + 3] = ARGV[3] .. ' ' .. checksum
  redis.call('HSET', key, unpack(ARGV, fields.first, fields.last))
  if checksum ~= last_checksum and gone.last >= gone.first then
    redis.call('HDEL', key, unpack(ARGV, gone.first, gone.last))
  end
  if new.asked then redis.call('HSET', key, 'asked', new.asked) end
  for _, json in ipairs(new) do redis.call('XADD', KEYS[3], '*', 'event', json) end
  tally('beats', 1)
  return 'accepted'
end

local open = open_generation(KEYS[1]) == ARGV[1]
for i = 4, #KEYS do
  local reply = 'closed'
  if open then
    local row = at
    at = at + 4
    local fields, gone, events = list(), list(), list()
    reply = record(
      KEYS[i], ARGV[row], ARGV[row + 1], ARGV[row + 2], ARGV[row + 3], fields, gone, events)
  end
  if reply ~= 'accepted' then tally('rejected_' .. reply, 1) end
  replies[i - 3] = reply
end
for what, by in pairs(counts) do count(KEYS[2], what, by) end
return replies
