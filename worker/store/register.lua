-- Apply requests, in order, each to one row: a last-writer-wins register by event time that leans towards the unsubscribe.
-- KEYS      of each request its bucket (`layout.py`)
-- ARGV[1]   now in ms, "" = the server's TIME; then of each request:
--   [1] way + 4 * (hash of the recipient XOR number of the bucket); way: 0 the first bucket, 1 one that was split off, 2 and its
--   parent says that the row is here  [2] recipient, as his fields begin  [3] the same once he is forgotten  [4] group, "" = 0
--   [5] the row that is wished for, as it is where there is none; "" = none: move what the first layout has. Suppressed or
--   resubscribed; held: holds, or may lift a held one; and flag 8: an import without a date, or a resubscribe that was made
--   elsewhere, at its event time, where others are of an actor who saw the row now
--   [6] how many follow, "0" if none says anything: [7] the row that a resubscribe's actor saw  [8] the row that the first
--   layout has, "" = none  [9] "1": it knows him as forgotten  [10…] fields that keep a long address
-- Returns of each request the effect, of a new row now and then with the bucket's size and depth; or a number when the row is not
-- here: the bucket's depth, or -1 when its parent must be asked. A call that fails has written the rows before the one it failed at.
-- Row: time ms (6), flags (1: 1 suppressed, 2 held, 4 complaint), source (1), evidence (8), while resubscribed the time of the row
-- that was lifted (6), and first seen s (4) unless it is the second of the time. string.byte and string.char only: fakeredis runs
-- this too.
local LEAN = 600000
local COUNTED = 8  -- every so many changes a bucket says how large it is
local byte, char, find, floor, sub = string.byte, string.char, string.find, math.floor, string.sub

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + floor(time[2] / 1000)
end

local function seconds(text, from)
  local a, b, c, d = byte(text, from, from + 3)
  return ((a * 256 + b) * 256 + c) * 256 + d
end

local function ms(text, from)
  local a, b = byte(text, from, from + 1)
  return (a * 256 + b) * 4294967296 + seconds(text, from + 2)
end

local function seconds_octets(value)
  return char(floor(value / 16777216) % 256, floor(value / 65536) % 256, floor(value / 256) % 256, value % 256)
end

local function ms_octets(value)
  local high = floor(value / 4294967296)
  return char(floor(high / 256) % 256, high % 256) .. seconds_octets(value % 4294967296)
end

local function suppresses(row) return row and byte(row, 7) % 2 == 1 end

-- The effect of a request on a row, and the row as it is then if it may be another one. old, seen: false = none.
local function decided(wish, old, seen)
  local asks, at = byte(wish, 7), ms(wish, 1)
  local is_resubscribe, other_time = asks % 2 == 0, asks >= 8
  if at > now then at, wish = now, ms_octets(now) .. sub(wish, 7) end  -- a later event time counts as now
  if not old then
    if is_resubscribe then return 'not-lifted' end
    return 'added', other_time and sub(wish, 1, 6) .. char(asks - 8) .. sub(wish, 8) or wish
  end

  local flags, code, kept, length = byte(old, 7), byte(old, 8), sub(old, 9, 16), #old
  local suppressed, held, complaint = flags % 2 == 1, floor(flags / 2) % 2 == 1, floor(flags / 4) % 2 == 1
  local time, lifted = ms(old, 1), not suppressed and ms(old, 17)
  local first = (length == 20 or length == 26) and seconds(old, length - 3) or floor(time / 1000)
  if time > now then time = now - 1 end  -- a clock that once ran ahead must not rule for years
  if lifted and lifted > now then lifted = now - 1 end
  local evidence, holds, complains = sub(wish, 9, 16), floor(asks / 2) % 2 == 1, floor(asks / 4) % 2 == 1

  local function row()
    local found = ms_octets(time) .. char((suppressed and 1 or 0) + (held and 2 or 0) + (complaint and 4 or 0), code) .. kept
    if not suppressed then found = found .. ms_octets(lifted) end
    if first ~= floor(time / 1000) then found = found .. seconds_octets(first) end
    return found
  end

  if is_resubscribe then
    if kept == evidence and not suppressed then return 'lifted' end  -- a repeat hears its first effect
    if seen ~= old or not suppressed or (held and not holds) then return 'not-lifted' end
    if other_time and at <= time then return 'not-lifted' end  -- what the row says came later; a tie is the unsubscribe's
    lifted, time = time, math.max(other_time and at or now, time + 1)
    suppressed, held, complaint, kept, code = false, false, false, evidence, byte(wish, 8)
    return 'lifted', row()
  end

  held = held or holds  -- whatever its time: a later mail must not launder a complaint
  if suppressed then
    complaint = complaint or complains
    if kept == evidence then return 'added', row() end
    time = math.max(time, at)
    return 'already-present', row()
  end
  if other_time or at <= lifted or at < time - LEAN then return 'stale', row() end
  time, suppressed, complaint, kept, code = math.max(at, time), true, complains, evidence, byte(wish, 8)
  return 'added', row()
end

local function applied(key, at)
  local whence, begin, name, count_field, wish = ARGV[at], ARGV[at + 1], ARGV[at + 2], '\0' .. ARGV[at + 3], ARGV[at + 4]
  local way, extra = whence % 4, ARGV[at + 5] ~= '0'
  -- Each that is not there costs a look at every field.
  local head, count, mark, there = unpack(redis.call('HMGET', key, '', count_field, name, begin .. count_field))
  local depth, changes, is_filled = '0', '0', false
  if head then
    local space = find(head, ' ', 1, true)
    depth, changes = sub(head, 1, space - 1), sub(head, space + 1)
    if find(changes, ' ', 1, true) then changes, is_filled = string.match(changes, '^%d+'), true end
  end
  if (not head and way ~= 0) or (is_filled and way ~= 2) then return -1 end
  if floor(whence / 4) % 2 ^ depth ~= 0 then return tonumber(depth) end

  local forgotten = mark or name == begin or (extra and ARGV[at + 8] == '1')
  if forgotten then begin, there = name, redis.call('HGET', key, name .. count_field) end
  local old = there or (extra and ARGV[at + 7] ~= '' and ARGV[at + 7])
  local effect, row = 'added', not there and old
  if wish ~= '' then effect, row = decided(wish, old, extra and ARGV[at + 6]) end

  local is_changed, is_unmarked = row and row ~= there, forgotten and not mark
  if not is_changed and not (is_unmarked and wish == '') then return effect end
  changes = changes + 1
  head = depth .. ' ' .. changes
  if is_unmarked then redis.call('HSET', key, '', head, name, '') end  -- a stored tag's, or a queued request's
  if not is_changed then return effect end
  local row_field, is_more = begin .. count_field, suppresses(row)
  if is_more == suppresses(there) then
    redis.call('HSET', key, '', head, row_field, row)
  else
    redis.call('HSET', key, '', head, count_field, (count or 0) + (is_more and 1 or -1), row_field, row)
  end
  if there then return effect end
  local last = at + 5 + ARGV[at + 5]
  if not forgotten and last > at + 8 then redis.call('HSET', key, unpack(ARGV, at + 9, last)) end
  if effect == 'added' and changes % COUNTED == 0 then return {effect, redis.call('HLEN', key), tonumber(depth)} end
  return effect
end

local answers, at = {}, 2
for number, key in ipairs(KEYS) do
  answers[number] = applied(key, at)
  at = at + 6 + ARGV[at + 5]
end
return answers
