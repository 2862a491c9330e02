-- lead: make a new leader's term known in a partition.
-- KEYS  1 term
-- ARGV  1 term
-- Returns 1, or 0 where a higher term was seen.
if tonumber(redis.call('GET', KEYS[1]) or 0) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
