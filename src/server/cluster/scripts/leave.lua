-- Ends a node: all its names are free. KEYS nodes who   ARGV node
local t = redis.call('TIME')
redis.call('HDEL', KEYS[2], ARGV[1])
return redis.call('HSET', KEYS[1], ARGV[1], -(t[1] * 1000 + math.floor(t[2] / 1000)))
