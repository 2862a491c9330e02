-- take_over: give a partition to another registry, by a person's word.
--
-- KEYS  1 registry
-- ARGV  1 the registry to have it  2 how often it was taken over by then
-- Returns 1, or 0 where it was taken over as often by somebody else meanwhile.
local name, takeovers = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%d+)')
if name and name ~= ARGV[1] and tonumber(takeovers) >= tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2])
return 1
