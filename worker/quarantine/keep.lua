-- Keep one entry, unless it is known. An eighth of its raw is what an allocator wastes on it.
-- KEYS[1] entries  [2] raw  [3] bytes by shelf  [4] index of the shelf  [5] mark of a resolved entry  [6…] drawers of its cards
-- ARGV[1] id  [2] facts  [3] raw  [4] kept ms  [5] shelf  [6] bytes that an entry costs besides facts and raw
-- ARGV[7] "1" = heed the mark  [8…] its cards, as the drawers
-- Returns 1 when it was kept now.
if ARGV[7] == '1' and redis.call('EXISTS', KEYS[5]) == 1 then return 0 end
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[1])
redis.call('HINCRBY', KEYS[3], ARGV[5], #ARGV[2] + #ARGV[3] + math.floor(#ARGV[3] / 8) + ARGV[6])
for at = 6, #KEYS do redis.call('HSET', KEYS[at], ARGV[at + 2], '') end
return 1
