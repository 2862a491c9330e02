-- claim: take a worker id for one process, or hold on to it.
--
-- KEYS  1 claim
-- ARGV  1 the process  2 seconds it is held for
-- Returns 1, or 0 while another process holds it.
--
-- Race: two processes draw one id; the second one draws again.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
