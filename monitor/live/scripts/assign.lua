-- assign: give a database to a worker under a fresh epoch; both workers' indexes are kept with it.
--
-- KEYS  1 database hash  2 generation  3 term  4 names  5 target  6 what index keys begin with
--       7 registry
-- ARGV  1 database  2 owner  3 epoch  4 term  5 planned ('1': the present owner lives)
--       6 doubt ('' or the one this cannot_reach move is for)  7 now, unix seconds
--       8 the leader's registry
--       9.. field value ... (the Status to begin with, used only where the hash has none)
--
-- Returns:
--   foreign   another registry's name stands here
--   stale     a higher term was seen here, or the hash's epoch is not lower
--   closed    a planned move while the generation is closed
--   unproven  a planned move before the present owner's first accepted beat
--   settled   the doubt is not open any more
--   assigned  done; also for the same assignment again (its reply may have been lost)
--
-- Race: a deposed leader assigns late; its term, or its lower epoch, is refused.
local name, owner, epoch, term, doubt = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[6]
local planned = ARGV[5] == '1'
local hash = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'proven', 'state', 'doubt', 'moves')
local former, known_epoch, proven, state, open_doubt, moves = unpack(hash)

local function refusal()
  local objected = objection(KEYS[3], KEYS[7], term, ARGV[8])
  if objected then return objected end
  if former == owner and known_epoch == epoch then return 'assigned' end
  if not newer(epoch, known_epoch) then return 'stale' end
  if planned and not open_generation(KEYS[2]) then return 'closed' end
  if planned and former and not proven then return 'unproven' end
  if doubt ~= '' and string.match(open_doubt or '', '^%S+') ~= doubt then return 'settled' end
end

-- The last three moves for a cannot_reach request: the leader counts them.
local function note_move()
  local moments = {}
  for moment in string.gmatch(moves or '', '%S+') do moments[#moments + 1] = moment end
  moments[#moments + 1] = ARGV[7]
  local last = table.concat(moments, ' ', math.max(1, #moments - 2))
  redis.call('HSET', KEYS[1], 'moved_for', doubt, 'moves', last)
end

local refused = refusal()
if refused then return refused end

redis.call('SET', KEYS[3], ARGV[4])
redis.call('SADD', KEYS[4], name)
redis.call('HSET', KEYS[1], 'owner', owner, 'epoch', epoch)
redis.call('HDEL', KEYS[1], 'proven', 'number', 'batch', 'claim_owner', 'claim_epoch', 'restored')
if not state and #ARGV > 8 then redis.call('HSET', KEYS[1], unpack(ARGV, 9)) end
if doubt ~= '' then note_move() end
if former and former ~= owner then redis.call('HDEL', KEYS[6] .. former, name) end
local revision = redis.call('HGET', KEYS[5], 'revision') or '0'
redis.call('HSET', KEYS[6] .. owner, name, epoch .. ' ' .. revision)
return 'assigned'
