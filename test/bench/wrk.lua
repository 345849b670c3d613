-- What wrk does in one run: every request posts the bytes of one file. Its figures come as one line of
-- JSON. There is no response() here: for it wrk would make a table of the headers of each answer, and
-- be the bottleneck itself; how many of the refusals were 429 is asked from the server.

-- `-- FILE [CONTENT-ENCODING]` after the address.
function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  wrk.headers["Content-Type"] = "application/json"
  if args[2] then wrk.headers["Content-Encoding"] = args[2] end
  file:close()
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
