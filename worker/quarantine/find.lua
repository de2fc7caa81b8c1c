-- Look through some entries for a text in what is known of them: here, so that only what is found travels.
-- KEYS[1] entries   ARGV[1] cursor  [2] how many at a time, about  [3] the text, its ASCII letters in lower case
-- Returns the next cursor, "0" after the last, and the ids.
local part, found = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2]), {}
for at = 1, #part[2], 2 do
  if string.find(string.lower(part[2][at + 1]), ARGV[3], 1, true) then found[#found + 1] = part[2][at] end
end
return {part[1], found}
