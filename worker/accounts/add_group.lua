-- Add one group: its name, its id and the number of groups are checked where they are written.
-- KEYS[1] groups  [2] the counter of ids  [3] the sender's names of groups that are not archived
-- ARGV[1] id, "" = the next one  [2] name  [3] how many groups the sender may have  [4] the group's row
-- Returns the id, or what was wrong: "name", "full", "id".
if redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1 then return 'name' end
if redis.call('HLEN', KEYS[3]) >= tonumber(ARGV[3]) then return 'full' end
local id = ARGV[1]
if id == '' then
  repeat
    id = string.format('%d', redis.call('INCR', KEYS[2]))
  until redis.call('HEXISTS', KEYS[1], id) == 0
elseif redis.call('HEXISTS', KEYS[1], id) == 1 then
  return 'id'
end
redis.call('HSET', KEYS[1], id, ARGV[4])
redis.call('HSET', KEYS[3], ARGV[2], id)
return id
