-- Keeps the claims of a node. Returns the indexes of the names that other nodes have, or -1 in another
-- generation.
-- KEYS names… data   ARGV node ttl_ms generation claims…
if string.match(redis.call('GET', KEYS[#KEYS]) or '', '^%d+') ~= ARGV[3] then return { -1 } end
local lost = {}
for i = 1, #KEYS - 1 do
  local held = redis.call('GET', KEYS[i])
  local owner, number = string.match(held or '', '^(.+)%.(%d+)$')
  if held and owner ~= ARGV[1] then
    lost[#lost + 1] = i - 1
  elseif not held or tonumber(number) <= tonumber(string.match(ARGV[i + 3], '%d+$')) then
    redis.call('SET', KEYS[i], ARGV[i + 3], 'PX', ARGV[2])
  end
end
return lost
