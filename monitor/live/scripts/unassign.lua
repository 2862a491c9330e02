-- unassign: take a database from its owner for good. The hash stays for readers, its epoch as a
-- fence; with `forget` nothing of the database stays.
--
-- KEYS  1 database hash  2 term  3 names  4 target  5 what index keys begin with  6 registry
-- ARGV  1 database  2 term  3 forget ('1')  4 the leader's registry
-- Returns 1, or 0 where a higher term was seen or another registry's name stands.
--
-- Race: its owner's late beat is fenced by the owner that is no more.
if objection(KEYS[2], KEYS[6], ARGV[2], ARGV[4]) then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner then redis.call('HDEL', KEYS[5] .. owner, ARGV[1]) end
redis.call('HDEL', KEYS[1], 'owner', 'proven', 'claim_owner', 'claim_epoch', 'restored')
redis.call('DEL', KEYS[4])
if ARGV[3] == '1' then
  redis.call('DEL', KEYS[1])
  redis.call('SREM', KEYS[3], ARGV[1])
end
return 1
