-- Forget recipients, each of one sender: mark the pair, and move its rows under its name.
-- KEYS of each the bucket (`layout.py`)
-- ARGV of each the first three that `register.lua` has
-- Returns of each the groups whose row moved; or a number when the rows are not here, as `register.lua`. A row that a request wrote
-- under the name meanwhile stays, unless only the other suppresses.
local function suppresses(row) return row and string.byte(row, 7) % 2 == 1 end

local function forgotten(key, whence, recipient, name)
  local begin, head = recipient .. '\0', redis.call('HGET', key, '')
  local depth, changes, filled = 0, 0, ''
  if head then depth, changes, filled = string.match(head, '^(%d+) (%d+)(.*)$') end
  if (not head and whence % 4 ~= 0) or (filled ~= '' and whence % 4 ~= 2) then return -1 end
  if math.floor(whence / 4) % 2 ^ depth ~= 0 then return tonumber(depth) end

  local moved = {}
  redis.call('HSET', key, name, '', '', depth .. ' ' .. changes + 1)
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if recipient ~= name and string.sub(field, 1, #begin) == begin then
      local group = string.sub(field, #begin + 1)
      local row, there = redis.call('HGET', key, field), redis.call('HGET', key, name .. '\0' .. group)
      if not there or (suppresses(row) and not suppresses(there)) then redis.call('HSET', key, name .. '\0' .. group, row) end
      redis.call('HDEL', key, field)
      if suppresses(row) and suppresses(there) then redis.call('HINCRBY', key, '\0' .. group, -1) end  -- one person again
      moved[#moved + 1] = group
    elseif string.sub(field, 1, #recipient + 1) == recipient .. '.' and string.sub(field, 1, 1) == '=' and not string.find(field, '@') then
      redis.call('HDEL', key, field)  -- the long address itself
    end
  end
  return moved
end

local answers = {}
for number, key in ipairs(KEYS) do answers[number] = forgotten(key, unpack(ARGV, 3 * number - 2, 3 * number)) end
return answers
