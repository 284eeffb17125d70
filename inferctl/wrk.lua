-- Every request of a wrk run is the same: BODY names a file, HEADERS one with a "name: value" on each line.
local body = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method, wrk.body = "POST", body:read("*a")
body:close()
for line in io.lines(os.getenv("HEADERS")) do
  local name, value = line:match("^(.-): (.*)$")
  wrk.headers[name] = value
end

function done(summary, latency, requests)
  local failed = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "microseconds": %d, "failed": %d, "p50": %d, "p90": %d, "p99": %d, "max": %d}\n',
    summary.requests, summary.duration,
    failed.connect + failed.read + failed.write + failed.status + failed.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
