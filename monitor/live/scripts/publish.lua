-- publish: put a database's sealed address, policy and labels where its owner finds them.
-- KEYS  1 target  2 database hash  3 what index keys begin with
-- ARGV  1 database  2 revision  3.. field value ...
-- Returns 1, or 0 where a higher revision stands (a deposed leader is late).
if tonumber(redis.call('HGET', KEYS[1], 'revision') or 0) > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'revision', ARGV[2], unpack(ARGV, 3))
local hash = redis.call('HMGET', KEYS[2], 'owner', 'epoch')
if hash[1] and hash[2] then redis.call('HSET', KEYS[3] .. hash[1], ARGV[1], hash[2] .. ' ' .. ARGV[2]) end
return 1
