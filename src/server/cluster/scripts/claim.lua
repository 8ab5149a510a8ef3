-- Claims a name. Returns the claim and the time of the lease if it is granted, the other claim and the time of
-- its lease if that has the name, nothing and the time to wait, or nothing and -1 in another generation.
-- KEYS name nodes data
-- ARGV node claim replaced_claim_or_nothing ttl_ms grace_ms generation lease_ms ms_since_the_last_renewal
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local generation, began = string.match(redis.call('GET', KEYS[3]) or '', '^(%d+) (%d+) ')
if generation ~= ARGV[6] then return { '', -1 } end
local expiry = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0') or 0
if now + 1000 < tonumber(began) then return { '', -1 } end
if expiry > 0 then
  local renewed = expiry - ARGV[7]
  if now > renewed + ARGV[8] + 1000 or now + 1000 < renewed then return { '', -1 } end
end
local held = redis.call('GET', KEYS[1])
if held then
  local owner, number = string.match(held, '^(.+)%.(%d+)$')
  if owner == ARGV[1] then
    -- This claim is late.
    if tonumber(number) > tonumber(string.match(ARGV[2], '%d+$')) then return { '', 0 } end
  else
    local other = tonumber(redis.call('HGET', KEYS[2], owner) or '0') or 0
    if other > now or (other >= 0 and held ~= ARGV[3]) then return { held, math.max(other - now, 0) } end
  end
elseif now < began + ARGV[5] then
  return { '', began + ARGV[5] - now }
end
if expiry <= now then return { '', 0 } end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[4])
return { ARGV[2], expiry - now }
