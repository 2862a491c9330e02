-- assign: give a database to a worker under a fresh epoch; the index of both workers is kept with it.
-- KEYS  1 database hash  2 generation  3 term  4 names  5 target  6 what index keys begin with  7 registry
-- ARGV  1 database  2 owner  3 epoch  4 term  5 planned ('1': the present owner lives)  6 doubt ('' or the doubt this
--       cannot_reach move is for)  7 now, unix seconds  8 the leader's registry  9.. field value ... (the Status to
--       begin with, used only where the hash has none)
-- Returns one word:
--   foreign   another registry's name stands here
--   stale     a higher term was seen here, or the hash's epoch is not lower
--   closed    a planned move while the generation is closed
--   unproven  a planned move before the present owner's first accepted beat
--   settled   the doubt is not open any more
--   assigned  done; also for the same assignment again (its reply may have been lost)
local name, owner, epoch, term, doubt = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[6]
local planned = ARGV[5] == '1'
local hash = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'proven', 'state', 'doubt', 'moves')

local function refusal()
  local objected = objection(KEYS[3], KEYS[7], term, ARGV[8])
  if objected then return objected end
  if hash[1] == owner and hash[2] == epoch then return 'assigned' end
  if not newer(epoch, hash[2]) then return 'stale' end
  if planned and not open_generation(KEYS[2]) then return 'closed' end
  if planned and hash[1] and not hash[3] then return 'unproven' end
  if doubt ~= '' and string.match(hash[5] or '', '^%S+') ~= doubt then return 'settled' end
end

local refused = refusal()
if refused then return refused end

redis.call('SET', KEYS[3], ARGV[4])
redis.call('SADD', KEYS[4], name)
redis.call('HSET', KEYS[1], 'owner', owner, 'epoch', epoch)
redis.call('HDEL', KEYS[1], 'proven', 'number', 'batch', 'claim_owner', 'claim_epoch', 'restored')
if not hash[4] and #ARGV > 8 then redis.call('HSET', KEYS[1], unpack(ARGV, 9)) end
if doubt ~= '' then
  local moves = {}
  for moment in string.gmatch(hash[6] or '', '%S+') do moves[#moves + 1] = moment end
  moves[#moves + 1] = ARGV[7]
  redis.call('HSET', KEYS[1], 'moved_for', doubt, 'moves', table.concat(moves, ' ', math.max(1, #moves - 2)))
end
if hash[1] and hash[1] ~= owner then redis.call('HDEL', KEYS[6] .. hash[1], name) end
local revision = redis.call('HGET', KEYS[5], 'revision') or '0'
redis.call('HSET', KEYS[6] .. owner, name, epoch .. ' ' .. revision)
return 'assigned'
