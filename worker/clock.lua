-- Adds to bounded hashes. KEYS[i] has ARGV: lifetime in s (0 = for good), most fields, number of triples, then triples of
-- field, the field that counts instead of it once the hash is full, amount. A field that begins with "^" keeps the greatest.
local at = 1
for _, key in ipairs(KEYS) do
  local life, most, count = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  at = at + 3
  local size = redis.call('HLEN', key)
  for _ = 1, count do
    local field, other, amount = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
    at = at + 3
    if size >= most and redis.call('HEXISTS', key, field) == 0 then field = other end
    if string.sub(field, 1, 1) == '^' then
      local before = tonumber(redis.call('HGET', key, field) or '-1')
      if before < 0 then size = size + 1 end
      if amount > before then redis.call('HSET', key, field, ARGV[at - 1]) end
    elseif redis.call('HINCRBY', key, field, ARGV[at - 1]) == amount then
      size = size + 1
    end
  end
  if life > 0 and count > 0 then redis.call('EXPIRE', key, life) end
end
