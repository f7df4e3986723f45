-- Looks an answer up and, if there is none, says under which lease it may be stored.
--
-- KEYS: the hash; a key that never exists. ARGV: the deployment, the field, a new lease, seconds to
-- live. Returns the answer alone; or the lease, nil if Redis is full and evicts nothing, and 1 if
-- another deployment uses the same keys.

-- What is cached lives as long as this primary's history: a restart from a snapshot and a promotion
-- both give the server another replication id. A writable replica would keep invalidations to
-- itself.
local replication = redis.call('INFO', 'replication')
local history = string.match(replication, 'master_replid:(%x+)')
if not history or not string.find(replication, 'role:master', 1, true) then
  return redis.error_reply('NOTPRIMARY this server is no primary, or does not tell its replication id')
end

local owner = ARGV[1] .. history
local owner_before = redis.call('HGET', KEYS[1], 'owner')
local lease, is_shared = nil, 0
if owner_before ~= owner then
  if owner_before and string.sub(owner_before, -#history) == history then
    is_shared = 1
  end
  redis.call('DEL', KEYS[1])
  lease = ARGV[3]
  local planted = redis.pcall('HSET', KEYS[1], 'owner', owner, 'lease', lease)
  if type(planted) == 'number' then
    redis.call('EXPIRE', KEYS[1], ARGV[4])
  else
    lease = false
  end
end

-- A server that refuses this would refuse the invalidation too, for whatever reason.
redis.call('DEL', KEYS[2])

if lease ~= nil then
  return {lease, is_shared}
end
-- One field at a time costs half of all in one call: the reply is no table.
local answer = redis.call('HGET', KEYS[1], ARGV[2])
return answer or {redis.call('HGET', KEYS[1], 'lease'), is_shared}
