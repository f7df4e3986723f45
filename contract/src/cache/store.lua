-- Stores an answer under the lease that its reader took, unless the hash would become too large.
--
-- KEYS: the hash. ARGV: the lease, the field, the answer, fields at most, bytes at most.
local held = redis.call('HMGET', KEYS[1], 'lease', 'bytes')
local bytes = #ARGV[2] + #ARGV[3]
if held[1] == ARGV[1]
  and redis.call('HLEN', KEYS[1]) < tonumber(ARGV[4])
  and tonumber(held[2] or 0) + bytes <= tonumber(ARGV[5])
  and redis.call('HSETNX', KEYS[1], ARGV[2], ARGV[3]) == 1
then
  redis.call('HINCRBY', KEYS[1], 'bytes', bytes)
end
return redis.status_reply('OK')
