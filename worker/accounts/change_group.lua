-- Change one group, unless somebody else changed it first. An archived group's name is free for another.
-- KEYS[1] groups  [2] the sender's names of groups that are not archived
-- ARGV[1] id  [2] its row, as seen  [3] its next row  [4] its name, "" = archived  [5] its next name, "" = archived
-- Returns "ok", "changed" or "name".
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 'changed' end
if ARGV[4] ~= ARGV[5] then
  if ARGV[5] ~= '' and redis.call('HEXISTS', KEYS[2], ARGV[5]) == 1 then return 'name' end
  if ARGV[4] ~= '' then redis.call('HDEL', KEYS[2], ARGV[4]) end
  if ARGV[5] ~= '' then redis.call('HSET', KEYS[2], ARGV[5], ARGV[1]) end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 'ok'
