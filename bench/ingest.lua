-- wrk's side of bench.ingest: each request once, in turn.
-- HYBRIDJOBS_BENCH_REQUESTS names a folder: a head and a body for each recorded delivery (N.head,
-- N.body), and `messages`, one a request: the headers that are its own, and what its body begins
-- with. HYBRIDJOBS_BENCH_DELAY_MS, if set, is the mean pause of a connection between requests.

local folder = os.getenv("HYBRIDJOBS_BENCH_REQUESTS")
local pause = tonumber(os.getenv("HYBRIDJOBS_BENCH_DELAY_MS") or "0")
local heads, bodies, own, begins, sent = {}, {}, {}, {}, 0

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
  heads[#heads + 1] = head
  bodies[#bodies + 1] = content(#bodies .. ".body")
end
for headers, begin in content("messages"):gmatch("([^\31]*)\31([^\30]*)\30") do
  own[#own + 1], begins[#begins + 1] = headers, begin
end

function request()
  local message, delivery = sent % #own + 1, sent % #heads + 1
  sent = sent + 1
  local body = begins[message] .. bodies[delivery]
  return heads[delivery] .. own[message] .. "Content-Length: " .. #body .. "\r\n\r\n" .. body
end

if pause > 0 then
  function delay()
    return math.random() * 2 * pause
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"microseconds":%d,"refused":%d,"broken":%d,"p50_ms":%.3f,"p99_ms":%.3f}\n',
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
