-- Change one entry or take it away, unless somebody else changed it first.
-- KEYS[1] entries  [2] raw  [3] bytes by shelf  [4] index of its shelf  [5] index of its next shelf  [6] its mark once resolved
-- KEYS[7…] drawers of the cards that go, then of those that come
-- ARGV[1] id  [2] its facts, as seen  [3] its shelf  [4] bytes that an entry costs besides facts and raw
-- ARGV[5] its next facts, "" = it goes  [6] its next shelf  [7] kept ms  [8] "drop", "set" or "" for what becomes of raw
-- ARGV[9] its next raw  [10] ms that the mark lives, 0 = none  [11] how many cards go  [12…] the cards, as the drawers
-- Returns 1 when it was changed now.
local id, seen, shelf, cost, facts = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]

local function weight(text)  -- as keep.lua counts
  local raw = redis.call('HSTRLEN', KEYS[2], id)
  return #text + raw + math.floor(raw / 8) + cost
end

if redis.call('HGET', KEYS[1], id) ~= seen then return 0 end

redis.call('ZREM', KEYS[4], id)
redis.call('HINCRBY', KEYS[3], shelf, -weight(seen))
if redis.call('EXISTS', KEYS[4]) == 0 then redis.call('HDEL', KEYS[3], shelf) end

local last = 6 + tonumber(ARGV[11])
for at = 7, last do redis.call('HDEL', KEYS[at], ARGV[at + 5]) end
for at = last + 1, #KEYS do redis.call('HSET', KEYS[at], ARGV[at + 5], '') end

if facts == '' or ARGV[8] == 'drop' then redis.call('HDEL', KEYS[2], id) end
if facts == '' then
  redis.call('HDEL', KEYS[1], id)
  if ARGV[10] ~= '0' then redis.call('SET', KEYS[6], ARGV[7], 'PX', ARGV[10]) end
  return 1
end
if ARGV[8] == 'set' then redis.call('HSET', KEYS[2], id, ARGV[9]) end
redis.call('HSET', KEYS[1], id, facts)
redis.call('ZADD', KEYS[5], ARGV[7], id)
redis.call('HINCRBY', KEYS[3], ARGV[6], weight(facts))
return 1
