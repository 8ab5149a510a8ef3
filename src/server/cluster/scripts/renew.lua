-- Renews the lease of a node. Returns the generation, its age, the entry of the node that this one has replaced
-- or nothing, and all other nodes, each with its entry and the time left of its lease. Of a node that has ended or
-- was replaced: 'replaced', 0, and the entry of the node that has its address or nothing.
-- KEYS nodes who data found
-- ARGV node lease_ms entry process ms_since_the_last_renewal_or_nothing returns_or_nothing known_generation
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local before = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '')
local all = redis.call('HGETALL', KEYS[1])
local address = string.match(ARGV[3], '^%S+')
if before and before < 0 then
  for i = 1, #all, 2 do
    local who = redis.call('HGET', KEYS[2], all[i]) or ''
    if all[i] ~= ARGV[1] and (tonumber(all[i + 1]) or 0) > now and string.match(who, '^%S+') == address then
      return { 'replaced', 0, who }
    end
  end
  if ARGV[6] == '' then return { 'replaced', 0, '' } end
end
local data = redis.call('GET', KEYS[3])
local generation, began, process = string.match(data or '', '^(%d+) (%d+) (.*)$')
generation, began = tonumber(generation or '0'), tonumber(began or '0')
-- The clock went faster than that of the node, or back.
local leapt = now + 1000 < began
if before and ARGV[5] ~= '' then
  local renewed = before - ARGV[2]
  leapt = leapt or now > renewed + ARGV[5] + 1000 or now + 1000 < renewed
end
-- Then, and when another process has the data than wrote them, all names are to be claimed again. The number of
-- the generation is the time, and higher than those before, also if the clock went back.
if process ~= ARGV[4] or leapt then
  generation, began = math.max(now, generation + 1, ARGV[7] + 1), now
  redis.call('SET', KEYS[3], string.format('%.0f %.0f %s', generation, began, ARGV[4]))
end
redis.call('HSET', KEYS[1], ARGV[1], now + ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
local out = { string.format('%.0f', generation), now - began, '' }
local addresses = { [address] = true }
for i = 1, #all, 2 do
  -- What no node wrote must not end the script, which would fail for all nodes: it counts as long gone.
  local node, expiry = all[i], tonumber(all[i + 1]) or 0
  local who = redis.call('HGET', KEYS[2], node) or ''
  if expiry > now then addresses[string.match(who, '^%S*')] = true end
  if now - math.abs(expiry) > 600000 then
    redis.call('HDEL', KEYS[1], node)
    redis.call('HDEL', KEYS[2], node)
  elseif node ~= ARGV[1] and expiry > 0 then
    -- A process that had this address has ended: its port belongs to this one.
    if not before and string.match(who, '^%S+') == address then
      if expiry > now then out[3] = who end
      redis.call('HSET', KEYS[1], node, -now)
      redis.call('HDEL', KEYS[2], node)
    else
      out[#out + 1] = node
      out[#out + 1] = who
      out[#out + 1] = expiry - now
    end
  end
end
-- Nodes that others found to run, also without an entry here: it was forgotten, or lost with the data. A node that
-- starts is to know them.
local found = redis.call('HGETALL', KEYS[4])
for i = 1, #found, 2 do
  local node, expiry = found[i], tonumber(redis.call('HGET', KEYS[1], found[i]) or '')
  local at, who = string.match(found[i + 1], '^(%d+) (.*)$')
  at, who = tonumber(at or '0'), who or ''
  local is_old = now - at > 600000 or addresses[string.match(who, '^%S*')]
  if is_old or expiry and (expiry < 0 or expiry > now) then
    redis.call('HDEL', KEYS[4], node)
  elseif not expiry then
    out[#out + 1] = node
    out[#out + 1] = who
    out[#out + 1] = math.min(at - now, -1)
  end
end
return out
