-- close: end a generation that is older than one a worker has entered: whoever leads must open
-- anew, above all terms seen.
--
-- KEYS  1 generation  2 term
-- ARGV  1 the leader's epoch of the newest generation the worker has entered
--       2 highest term it saw
-- Returns 1, or 0 where no older generation stands.
--
-- Race: a master that was left behind comes back with a generation that was open when it was left.
local name = redis.call('GET', KEYS[1])
if not name or not newer(ARGV[1], string.match(name, ':(.*)$')) then return 0 end
local known = tonumber(redis.call('GET', KEYS[2]) or 0)
if tonumber(ARGV[2]) > known then redis.call('SET', KEYS[2], ARGV[2]) end
redis.call('DEL', KEYS[1])
return 1
