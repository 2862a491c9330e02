-- lead: make a new leader's term and its registry known in a partition.
-- KEYS  1 term  2 registry
-- ARGV  1 term  2 the registry that gave it
-- Returns 1, or 0 where a higher term was seen or another registry's name stands.
if objection(KEYS[1], KEYS[2], ARGV[1], ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
sign(KEYS[2], ARGV[2])
return 1
