-- Keep what was counted of a group, if nothing changed it meanwhile.
-- KEYS[1] the sender's counts   ARGV[1] group  [2] its changes when the counting began, "" = none yet  [3] suppressed rows
-- Returns 1 when it was kept. `GROUP:whole` says that the count has held every row since; else rows are older than counting.
if (redis.call('HGET', KEYS[1], ARGV[1] .. ':changes') or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3], ARGV[1] .. ':whole', 1)
return 1
