-- The two steps that make a bucket's rows another's (`growth.py`). KEYS[1] bucket  ARGV[1] "fill", "leave" or "open"
-- fill:  [2] head it is to have, as "depth changes"  [3…] fields and values. Takes the rows that another bucket still answers for.
--        Returns 1; 0 when it has newer rows, or answers itself.
-- leave: [2] head that whoever read the bucket saw  [3] its new head  [4…] fields and values that stay. Gives the others up.
--        Returns 1; 0 when it changed since.
-- open:  what it was filled with is its own from now on.
local key, head = KEYS[1], redis.call('HGET', KEYS[1], '')

local function changes(text) return tonumber(string.match(text, '^%d+ (%d+)')) end

local function put(from)
  for i = from, #ARGV, 1000 do redis.call('HSET', key, unpack(ARGV, i, math.min(i + 999, #ARGV))) end
end

if ARGV[1] == 'fill' then
  if head and (not string.find(head, 'filled') or changes(head) > changes(ARGV[2])) then return 0 end
  redis.call('DEL', key)
  redis.call('HSET', key, '', ARGV[2] .. ' filled')
  put(3)
  return 1
end
if ARGV[1] == 'leave' then
  if head ~= ARGV[2] then return 0 end
  redis.call('DEL', key)  -- written anew, in one piece: a bucket that was too large for a listpack becomes one again
  redis.call('HSET', key, '', ARGV[3])
  put(4)
  return 1
end
if head and string.find(head, 'filled') then redis.call('HSET', key, '', string.match(head, '^%d+ %d+')) end
return 1
