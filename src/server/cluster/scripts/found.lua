-- Reports nodes that run, and whose leases do not last. KEYS found   ARGV node entry …
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 1, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], string.format('%.0f %s', now, ARGV[i + 1]))
end
return #ARGV / 2
