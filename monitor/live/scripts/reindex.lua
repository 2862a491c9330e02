-- reindex: make workers' indexes agree with the hashes, which are the truth; needs no fence.
--
-- KEYS  1 what index keys begin with, then per row: database hash, target
-- ARGV  per row: database, the worker whose index has it ('' where only the hash was looked at)
-- Returns how many rows were looked at.
for i = 1, #ARGV, 2 do
  local name, holder = ARGV[i], ARGV[i + 1]
  local owner, epoch = unpack(redis.call('HMGET', KEYS[i + 1], 'owner', 'epoch'))
  if owner and epoch then
    local revision = redis.call('HGET', KEYS[i + 2], 'revision') or '0'
    redis.call('HSET', KEYS[1] .. owner, name, epoch .. ' ' .. revision)
  end
  if holder ~= '' and holder ~= owner then redis.call('HDEL', KEYS[1] .. holder, name) end
end
return #ARGV / 2
