-- replay: give accepted events to the journal again, which Redis may have lost. Past the epoch
-- check, but into the open generation only; consumers know an event by its identity.
--
-- KEYS  1 generation  2 counters  3 journal
-- ARGV  1 generation's name  2.. events (JSON)
-- Returns 1, or 0 where the generation is not open here, or not the one named.
--
-- Race: it comes late, when Redis was lost once more: the next report holds these events again.
if open_generation(KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #ARGV do redis.call('XADD', KEYS[3], '*', 'event', ARGV[i], 'replayed', '1') end
count(KEYS[2], 'replayed', #ARGV - 1)
return 1
