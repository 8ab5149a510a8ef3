-- Renews the lease of a node, and returns the generation, its age and all other nodes.
-- KEYS nodes who data   ARGV node lease_ms entry process ms_since_the_last_renewal_or_nothing
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local before = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '')
if before and before < 0 then return { 'buried', 0 } end
local data = redis.call('GET', KEYS[3])
local since, process = string.match(data or '', '^(%d+) (.*)$')
-- The clock went faster than that of the node, or back.
local leapt = since and now + 1000 < tonumber(since)
if before and ARGV[5] ~= '' then
  local renewed = before - ARGV[2]
  leapt = leapt or now > renewed + ARGV[5] + 1000 or now + 1000 < renewed
end
-- Then, and when another process has the data than wrote them, all names are to be claimed again.
if process ~= ARGV[4] or leapt then
  since = now
  redis.call('SET', KEYS[3], since .. ' ' .. ARGV[4])
end
redis.call('HSET', KEYS[1], ARGV[1], now + ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
local out = { tostring(since), now - since }
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local node, expiry = all[i], tonumber(all[i + 1])
  local who = redis.call('HGET', KEYS[2], node) or ''
  if now - math.abs(expiry) > 600000 then
    redis.call('HDEL', KEYS[1], node)
    redis.call('HDEL', KEYS[2], node)
  elseif node ~= ARGV[1] and expiry > 0 then
    -- A process that had this address has ended: its port belongs to this one.
    if not before and string.match(who, '^%S+') == string.match(ARGV[3], '^%S+') then
      redis.call('HSET', KEYS[1], node, -now)
      redis.call('HDEL', KEYS[2], node)
    else
      out[#out + 1] = node
      out[#out + 1] = who
    end
  end
end
return out
