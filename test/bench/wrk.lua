-- What wrk does in one run: every request posts the bytes of one file. Its figures come as one line of
-- JSON. There is no response() here: for it wrk would make a table of the headers of each answer, and
-- be the bottleneck itself; how many of the refusals were 429 is asked from the server.

-- `-- FILE CONTENT-ENCODING TABLES` after the address. With tables, requests take turns: PATH_1, PATH_2 …
function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  wrk.headers["Content-Type"] = "application/json"
  if args[2] ~= "" then wrk.headers["Content-Encoding"] = args[2] end
  file:close()
  local tables = tonumber(args[3])
  if tables == 0 then return end
  local requests, at = {}, 0
  for number = 1, tables do
    requests[number] = wrk.format(nil, wrk.path .. "_" .. number)
  end
  request = function()
    at = at % tables + 1
    return requests[at]
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"durationUs":%d,"refused":%d,"broken":%d,"p50Us":%d,"p99Us":%d,"p999Us":%d}\n',
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)
  ))
end
