-- open: let workers record in a partition again. Only for a leader nobody overtook, and only while
-- the memories it relies on still stand.
--
-- KEYS  1 generation  2 term  3 reports  4 registry
-- ARGV  1 name  2 instance  3 term  4 the leader's registry  5.. reporters
-- Returns:
--   moved      this is another instance of the server than the one that was restored
--   foreign    another registry's name stands here
--   stale      a higher term was seen here
--   forgotten  a report is missing: memory was lost since it was made
--   opened     done; also when it was done before
--
-- Race: Redis is flushed, or fails over, between the last report and the opening.
local name, instance = ARGV[1], ARGV[2]
if not is_this_instance(instance) then return 'moved' end
local objected = objection(KEYS[2], KEYS[4], ARGV[3], ARGV[4])
if objected then return objected end
if redis.call('GET', KEYS[1]) == name then return 'opened' end
for i = 5, #ARGV do
  local report = redis.call('HGET', KEYS[3], ARGV[i]) or ''
  if not string.match(report, '^' .. instance .. ' %S+ done$') then return 'forgotten' end
end
redis.call('SET', KEYS[1], name)
redis.call('SET', KEYS[2], ARGV[3])
redis.call('DEL', KEYS[3])
return 'opened'
