-- lead: make a new leader's term known in a partition, and whose it is where nobody has said yet.
--
-- KEYS  1 term  2 registry
-- ARGV  1 term  2 the registry that gave it
-- Returns 1, or 0 where a higher term was seen or another registry's name stands.
--
-- Race: leaders of two registries claim one empty Redis; whoever comes first to a partition has it.
if objection(KEYS[1], KEYS[2], ARGV[1], ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
if ARGV[2] ~= '' then redis.call('SETNX', KEYS[2], ARGV[2] .. ' 0') end
return 1
