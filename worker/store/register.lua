-- Apply one request to one row: a last-writer-wins register by event time that leans towards the unsubscribe.
-- KEYS[1] bucket (`layout.py`)
-- ARGV[1] hash of the recipient  [2] number of the bucket  [3] "1": its parent says that the row is here
-- ARGV[4] recipient, as his fields begin  [5] the same once he is forgotten  [6] group, "" = 0
-- ARGV[7] "u" unsubscribe, "c" complaint, "r" resubscribe, "m" no request: move what the first layout has  [8] event time ms  [9] evidence, 8 bytes
-- ARGV[10] source code 0..255  [11] "1": this entry holds the row / may lift a held one  [12] the row that a resubscribe's actor saw
-- ARGV[13] now in ms, "" = the server's TIME  [14] "1": an import without a date; of a resubscribe: its actor saw the row now, so
-- it happens now ("0": elsewhere, at its event time)
-- ARGV[15] the row that the first layout has, "" = none  [16] "1": it knows him as forgotten  [17…] fields that keep a long address;
-- all of these are left out where none says anything
-- Returns the effect, for a new row with the bucket's size and depth; or a number when the row is not here: the bucket's depth, or
-- -1 when its parent must be asked.
-- Row: time ms (6), flags (1: 1 suppressed, 2 held, 4 complaint), source (1), evidence (8), while resubscribed the time of the row
-- that was lifted (6), and first seen s (4) unless it is the second of the time. string.byte and string.char only: fakeredis runs
-- this too.
local LEAN = 600000

local function number(text, from, to)
  local value = 0
  for i = from, to do value = value * 256 + string.byte(text, i) end
  return value
end

local floor = math.floor

local function seconds_octets(value)
  return string.char(floor(value / 16777216) % 256, floor(value / 65536) % 256, floor(value / 256) % 256, value % 256)
end

local function time_octets(value)
  local high = floor(value / 4294967296)
  return string.char(floor(high / 256) % 256, high % 256) .. seconds_octets(value % 4294967296)
end

local key, recipient, name, group, action = KEYS[1], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local address_field, name_field = recipient .. '\0' .. group, name .. '\0' .. group
local found = redis.call('HMGET', key, '', name, address_field)  -- each that is not there costs a look at every field
local head, forgotten = found[1], found[2] or ARGV[16] == '1' or recipient == name
local depth, changes, filled = 0, 0, ''
if head then
  depth, changes, filled = string.match(head, '^(%d+) (%d+)(.*)$')
  depth, changes = tonumber(depth), tonumber(changes)
end
if (not head and ARGV[2] ~= '0') or (filled ~= '' and ARGV[3] ~= '1') then return -1 end
if tonumber(ARGV[1]) % 2 ^ depth ~= tonumber(ARGV[2]) % 2 ^ depth then return depth end

local evidence, source, holds = ARGV[9], tonumber(ARGV[10]), ARGV[11] == '1'
local now
if ARGV[13] == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000 + floor(time[2] / 1000)
else
  now = tonumber(ARGV[13])
end
local at = math.max(0, math.min(tonumber(ARGV[8]), now))  -- a later event time counts as now; none fits before 1970

local row_field, there = address_field, found[3]
if forgotten then row_field, there = name_field, redis.call('HGET', key, name_field) end
local packed = there or (ARGV[15] ~= '' and ARGV[15])
local first, time, suppressed, held, complaint, lifted, kept
if packed then
  local flags, length = string.byte(packed, 7), #packed
  time = number(packed, 1, 6)
  suppressed, held, complaint = flags % 2 == 1, floor(flags / 2) % 2 == 1, floor(flags / 4) % 2 == 1
  kept = string.sub(packed, 9, 16)
  if length == 20 or length == 26 then first = number(packed, length - 3, length) else first = floor(time / 1000) end
  if time > now then time = now - 1 end  -- a clock that once ran ahead must not rule for years
  if not suppressed then
    lifted = number(packed, 17, 22)
    if lifted > now then lifted = now - 1 end
  end
end

local was = there and suppressed

local function write(code)
  local flags = (suppressed and 1 or 0) + (held and 2 or 0) + (complaint and 4 or 0)
  local row = time_octets(time) .. string.char(flags, code) .. kept
  if not suppressed then row = row .. time_octets(lifted) end
  if first ~= floor(time / 1000) then row = row .. seconds_octets(first) end
  if row == there then return end
  redis.call('HSET', key, row_field, row, '', depth .. ' ' .. changes + 1)
  if forgotten and not found[2] then redis.call('HSET', key, name, '') end  -- a stored tag's, or a queued request's
  if not there and not forgotten and ARGV[17] then redis.call('HSET', key, unpack(ARGV, 17)) end
  if suppressed ~= (was or false) then redis.call('HINCRBY', key, '\0' .. group, suppressed and 1 or -1) end
end

if action == 'm' then
  if packed and not there then
    write(string.byte(packed, 8))
  elseif forgotten and not found[2] then
    redis.call('HSET', key, name, '', '', depth .. ' ' .. changes + 1)
  end
  return {'added', redis.call('HLEN', key), depth}
end

if action == 'r' then
  if not packed then return 'not-lifted' end
  if kept == evidence and not suppressed then return 'lifted' end  -- a repeat hears its first effect
  if ARGV[12] ~= packed or not suppressed or (held and not holds) then return 'not-lifted' end
  if ARGV[14] == '0' and at <= time then return 'not-lifted' end  -- what the row says came later; a tie is the unsubscribe's
  lifted, time = time, math.max(ARGV[14] == '1' and now or at, time + 1)
  suppressed, held, complaint, kept = false, false, false, evidence
  write(source)
  return 'lifted'
end

if not packed then
  first, time, suppressed, held, complaint, kept = floor(at / 1000), at, true, holds, action == 'c', evidence
  write(source)
  return {'added', redis.call('HLEN', key), depth}
end
local code = string.byte(packed, 8)
held = held or holds  -- whatever its time: a later mail must not launder a complaint
if suppressed then
  complaint = complaint or action == 'c'
  if kept == evidence then
    write(code)
    return 'added'
  end
  time = math.max(time, at)
  write(code)
  return 'already-present'
end
if ARGV[14] == '1' or at <= lifted or at < time - LEAN then
  write(code)
  return 'stale'
end
time, suppressed, complaint, kept = math.max(at, time), true, action == 'c', evidence
write(source)
return 'added'
