-- publish: put a database's sealed address, policy and labels where its owner finds them.
--
-- KEYS  1 target  2 database hash  3 what index keys begin with  4 term  5 registry
-- ARGV  1 database  2 revision  3 the leader's term  4 its registry  5.. field value ...
-- Returns 1, or 0 where a leader of a higher term spoke, one of another registry, or one of this
-- term of a higher revision.
--
-- Race: a deposed leader is late. A higher term may go back to a lower revision: its registry was
-- restored from an older copy.
if objection(KEYS[4], KEYS[5], ARGV[3], ARGV[4]) then return 0 end
local term, revision = tonumber(ARGV[3]), tonumber(ARGV[2])
local stored = redis.call('HMGET', KEYS[1], 'term', 'revision')
local known_term, known_revision = tonumber(stored[1] or 0), tonumber(stored[2] or 0)
if known_term > term then return 0 end
if known_term == term and known_revision > revision then return 0 end
redis.call('HSET', KEYS[1], 'revision', ARGV[2], 'term', ARGV[3], unpack(ARGV, 5))
local owner, epoch = unpack(redis.call('HMGET', KEYS[2], 'owner', 'epoch'))
if owner and epoch then redis.call('HSET', KEYS[3] .. owner, ARGV[1], epoch .. ' ' .. ARGV[2]) end
return 1
