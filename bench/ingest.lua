-- wrk's side of bench.ingest: the recorded deliveries in turn, each under a delivery id of its own.
-- HYBRIDJOBS_BENCH_REQUESTS names a folder of files N.head and N.body, HYBRIDJOBS_BENCH_RUN the run.

local folder = os.getenv("HYBRIDJOBS_BENCH_REQUESTS")
local run = os.getenv("HYBRIDJOBS_BENCH_RUN")
local heads, tails, sent = {}, {}, 0

local function content(name)
  local file = io.open(folder .. "/" .. name, "rb")
  if not file then return nil end
  local text = file:read("*a")
  file:close()
  return text
end

while true do
  local head = content(#heads .. ".head")
  if not head then break end
  local body = content(#heads .. ".body")
  heads[#heads + 1] = head .. "X-GitHub-Delivery: " .. run .. "-"
  tails[#tails + 1] = "\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

function request()
  local place = sent % #heads + 1
  sent = sent + 1
  return heads[place] .. sent .. tails[place]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"microseconds":%d,"failed":%d,"p50_ms":%.3f,"p99_ms":%.3f}\n',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
