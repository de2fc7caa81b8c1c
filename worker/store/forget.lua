-- Forget one recipient of one sender: mark the pair, and move its rows under its name.
-- KEYS[1] the sender's forgotten names  [2] its counts  [3…] hashes of its groups
-- ARGV[1] recipient  [2] name
-- Returns how many rows moved. A row that a request wrote under the name meanwhile stays, unless only the other suppresses.
local function suppresses(row) return row and string.byte(row, 11) % 2 == 1 end

redis.call('SADD', KEYS[1], ARGV[2])
local moved = 0
for i = 3, #KEYS do
  local row = redis.call('HGET', KEYS[i], ARGV[1])
  if row then
    local there = redis.call('HGET', KEYS[i], ARGV[2])
    if not there or (suppresses(row) and not suppresses(there)) then redis.call('HSET', KEYS[i], ARGV[2], row) end
    redis.call('HDEL', KEYS[i], ARGV[1])
    local group = string.match(KEYS[i], '}:(%d+)$')
    redis.call('HINCRBY', KEYS[2], group .. ':changes', 1)
    if suppresses(row) and suppresses(there) then redis.call('HINCRBY', KEYS[2], group, -1) end  -- one person again
    moved = moved + 1
  end
end
return moved
