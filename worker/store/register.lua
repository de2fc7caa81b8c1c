-- Apply one request to one row: a last-writer-wins register by event time that leans towards the unsubscribe.
-- KEYS[1] hash of (sender, group)  [2] the sender's groups that have rows  [3] the sender's forgotten names  [4] its counts
-- ARGV[1] recipient  [2] "u" unsubscribe, "c" complaint, "r" resubscribe  [3] event time ms  [4] evidence, 8 bytes
-- ARGV[5] source code 0..255  [6] "1": this entry holds the row / may lift a held one  [7] the row that a resubscribe's actor saw
-- ARGV[8] now in ms, "" = the server's TIME  [9] the recipient's name once forgotten  [10] group  [11] "1": an import without
-- a date; of a resubscribe: its actor saw the row now, so it happens now ("0": elsewhere, at its event time)
-- Returns the effect.
-- Row: first seen s (4), time ms (6), flags (1: 1 suppressed, 2 held, 4 complaint), source (1), evidence (8), and while
-- resubscribed the time of the row that was lifted (6). string.byte and string.char only: fakeredis runs this too.
local LEAN = 600000

local function number(text, from, to)
  local value = 0
  for i = from, to do value = value * 256 + string.byte(text, i) end
  return value
end

local function octets(value, width)
  local text = ''
  for _ = 1, width do
    text = string.char(value % 256) .. text
    value = math.floor(value / 256)
  end
  return text
end

local key, recipient, action = KEYS[1], ARGV[1], ARGV[2]
if recipient == ARGV[9] then
  redis.call('SADD', KEYS[3], recipient)  -- a stored tag's, or a queued request's, of a sender that had no row by then
elseif redis.call('SISMEMBER', KEYS[3], ARGV[9]) == 1 then
  recipient = ARGV[9]
end
local evidence, source, holds = ARGV[4], tonumber(ARGV[5]), ARGV[6] == '1'
local now
if ARGV[8] == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
else
  now = tonumber(ARGV[8])
end
local at = math.max(0, math.min(tonumber(ARGV[3]), now))  -- a later event time counts as now; none fits before 1970

local packed = redis.call('HGET', key, recipient)
local first, time, suppressed, held, complaint, lifted, kept
if packed then
  local flags = string.byte(packed, 11)
  first, time = number(packed, 1, 4), number(packed, 5, 10)
  suppressed, held, complaint = flags % 2 == 1, math.floor(flags / 2) % 2 == 1, math.floor(flags / 4) % 2 == 1
  kept = string.sub(packed, 13, 20)
  if time > now then time = now - 1 end  -- a clock that once ran ahead must not rule for years
  if not suppressed then
    lifted = number(packed, 21, 26)
    if lifted > now then lifted = now - 1 end
  end
end

local was = suppressed

local function write(code)
  local flags = (suppressed and 1 or 0) + (held and 2 or 0) + (complaint and 4 or 0)
  local row = octets(first, 4) .. octets(time, 6) .. string.char(flags, code) .. kept
  if not suppressed then row = row .. octets(lifted, 6) end
  if row == packed then return end
  redis.call('HSET', key, recipient, row)
  redis.call('HINCRBY', KEYS[4], ARGV[10] .. ':changes', 1)
  if suppressed ~= (was or false) then redis.call('HINCRBY', KEYS[4], ARGV[10], suppressed and 1 or -1) end
end

if action == 'r' then
  if not packed then return 'not-lifted' end
  if kept == evidence and not suppressed then return 'lifted' end  -- a repeat hears its first effect
  if ARGV[7] ~= packed or not suppressed or (held and not holds) then return 'not-lifted' end
  if ARGV[11] == '0' and at <= time then return 'not-lifted' end  -- what the row says came later; a tie is the unsubscribe's
  lifted, time = time, math.max(ARGV[11] == '1' and now or at, time + 1)
  suppressed, held, complaint, kept = false, false, false, evidence
  write(source)
  return 'lifted'
end

if not packed then
  first, time, suppressed, held, complaint, kept = math.floor(at / 1000), at, true, holds, action == 'c', evidence
  write(source)
  if redis.call('SADD', KEYS[2], ARGV[10]) == 1 then
    redis.call('HSET', KEYS[4], ARGV[10] .. ':whole', 1)  -- no row is older than the counting
  end
  return 'added'
end
local code = string.byte(packed, 12)
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
if ARGV[11] == '1' or at <= lifted or at < time - LEAN then
  write(code)
  return 'stale'
end
time, suppressed, complaint, kept = math.max(at, time), true, action == 'c', evidence
write(source)
return 'added'
