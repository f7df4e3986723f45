-- What wrk sends. Arguments: operation, a number that no other run with these tables has, tasks.
-- A request that is always the same is made once; wrk's own script costs time that the others need too.

local json = { ["Content-Type"] = "application/json" }
local next_request

local function id(number)
  return string.format("01900000-0000-7000-8000-%012x", number)
end

local function again_and_again(requests)
  local number = 0
  return function()
    number = number % #requests + 1
    return requests[number]
  end
end

local operations = {}

function operations.hello()
  return again_and_again({ wrk.format("GET", "/") })
end

function operations.get_cached()
  local requests = {}
  for number = 0, 99 do
    requests[#requests + 1] = wrk.format("GET", "/api/tasks/" .. id(number))
  end
  return again_and_again(requests)
end

function operations.get(first, tasks)
  local number = first
  return function()
    number = (number + 1) % tasks
    return wrk.format("GET", "/api/tasks/" .. id(number))
  end
end

function operations.list_cached()
  return again_and_again({ wrk.format("GET", "/api/tasks?limit=20") })
end

-- 999 different pages of 20 tasks on average, which stay away from the cache for as long as somebody
-- drops the lists more often than they are all asked for.
function operations.list()
  local requests = {}
  for offset = 0, 110 do
    for limit = 16, 24 do
      requests[#requests + 1] = wrk.format("GET", "/api/tasks?limit=" .. limit .. "&offset=" .. offset)
    end
  end
  return again_and_again(requests)
end

function operations.update(first, tasks)
  local number, run = first, os.time() -- a title that the task has already would change nothing
  return function()
    number = number + 1
    local body = string.format('{"title":"Changed for the time %d of run %d"}', number, run)
    return wrk.format("PATCH", "/api/tasks/" .. id(number % tasks), json, body)
  end
end

function operations.create()
  local body = '{"title":"Write the report","description":"A weekly matter, described at some length, as people do it"}'
  return again_and_again({ wrk.format("POST", "/api/tasks", json, body) })
end

function init(arguments)
  next_request = operations[arguments[1]](tonumber(arguments[2]), tonumber(arguments[3]))
end

function request()
  return next_request()
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'result {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
