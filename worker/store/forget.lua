-- Forget one recipient of one sender: mark the pair, and move its rows under its name.
-- KEYS[1] bucket (`layout.py`)
-- ARGV[1] hash of the recipient  [2] number of the bucket  [3] "1": its parent says that the rows are here
-- ARGV[4] recipient, as his fields begin  [5] the same once he is forgotten
-- Returns the groups whose row moved; or a number when the rows are not here, as `register.lua`. A row that a request wrote under the
-- name meanwhile stays, unless only the other suppresses.
local function suppresses(row) return row and string.byte(row, 7) % 2 == 1 end

local key, begin, name = KEYS[1], ARGV[4] .. '\0', ARGV[5]
local head = redis.call('HGET', key, '')
local depth, changes, filled = 0, 0, ''
if head then
  depth, changes, filled = string.match(head, '^(%d+) (%d+)(.*)$')
  depth, changes = tonumber(depth), tonumber(changes)
end
if (not head and ARGV[2] ~= '0') or (filled ~= '' and ARGV[3] ~= '1') then return -1 end
if tonumber(ARGV[1]) % 2 ^ depth ~= tonumber(ARGV[2]) % 2 ^ depth then return depth end

local moved = {}
redis.call('HSET', key, name, '', '', depth .. ' ' .. changes + 1)
for _, field in ipairs(redis.call('HKEYS', key)) do
  if ARGV[4] ~= name and string.sub(field, 1, #begin) == begin then
    local group = string.sub(field, #begin + 1)
    local row, there = redis.call('HGET', key, field), redis.call('HGET', key, name .. '\0' .. group)
    if not there or (suppresses(row) and not suppresses(there)) then redis.call('HSET', key, name .. '\0' .. group, row) end
    redis.call('HDEL', key, field)
    if suppresses(row) and suppresses(there) then redis.call('HINCRBY', key, '\0' .. group, -1) end  -- one person again
    moved[#moved + 1] = group
  elseif string.sub(field, 1, #ARGV[4] + 1) == ARGV[4] .. '.' and string.sub(field, 1, 1) == '=' and not string.find(field, '@') then
    redis.call('HDEL', key, field)  -- the long address itself
  end
end
return moved
