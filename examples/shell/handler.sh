#!/bin/sh
# Counts a repository's issues and pull requests, and the issues by label: payload {"owner", "repo"}.
set -eu

api=$HYBRIDJOB_API/worker/v1/attempts/$HYBRIDJOB_ID/$HYBRIDJOB_ATTEMPT
github=${GITHUB_API_URL:-https://api.github.com}
termination_log=${HYBRIDJOB_TERMINATION_LOG:-/dev/termination-log}
stop_at=$(($(date +%s) + HYBRIDJOB_DEADLINE_SECONDS * 3 / 4))
work=$(mktemp -d)

# fail CODE ERROR [SECONDS]: end this attempt; with SECONDS the next one begins after so many.
fail() {
  jq -cn --arg error "$2" --argjson after "${3:-null}" '{error: $error, retryAfter: $after}' \
    > "$termination_log"
  exit "$1"
}

# ask NAME ARGUMENT...: an HTTP request; sets status, and leaves $work/NAME.headers and NAME.body.
# curl runs in the background, since a shell runs its traps only once a foreground command has ended.
ask() {
  name=$1
  shift
  curl -sS --max-time 30 -D "$work/$name.headers" -o "$work/$name.body" -w '%{http_code}' "$@" \
    > "$work/$name.status" &
  wait $! || true # no answer is status 000
  status=$(cat "$work/$name.status")
}

# header NAME: of GitHub's last answer (after redirects).
header() {
  tr -d '\r' < "$work/github.headers" | sed -n "s/^$1: //Ip" | tail -n 1
}

# worker NAME METHOD PATH [FILE]: ask the worker API, and send it the JSON in FILE. The token is read
# each time, as it is replaced; curl waits as a 503's Retry-After says.
worker() {
  ask "$1" -X "$2" --retry 5 --retry-connrefused --data-binary "@${4:-/dev/null}" \
    -H "Authorization: Bearer $(cat "$HYBRIDJOB_TOKEN_FILE")" -H 'Content-Type: application/json' \
    "$api/$3"
}

# told METHOD PATH [FILE]: the same, where this attempt cannot go on without.
told() {
  worker api "$@"
  case $status in
    2??) ;;
    409) exit 75 ;; # the attempt is closed: another one goes on
    *) fail 1 "the worker API answers $status to $1 $2" ;;
  esac
}

# Until somebody cancels the job, or the attempt is closed. Without an answer the work goes on.
heartbeats() {
  while sleep 15; do
    worker beat PUT heartbeat
    if [ "$status" = 409 ]; then break; fi
    if [ "$status" = 200 ] && jq -e .cancelRequested "$work/beat.body" > /dev/null; then break; fi
  done
  kill -TERM $$
}

# limited: how many seconds GitHub wants us to wait; nothing where it refuses for another reason.
limited() {
  after=$(header retry-after)
  if [ -z "$after" ] && [ "$(header x-ratelimit-remaining)" = 0 ]; then
    after=$(($(header x-ratelimit-reset) - $(date +%s) + 1))
  fi
  if [ -z "$after" ] && [ "$status" = 429 ]; then after=60; fi
  if [ -n "$after" ] && [ "$after" -lt 1 ]; then after=1; fi
  echo "$after"
}

# SIGTERM comes at the deadline, at a cancel, and when the node goes. What is saved is enough.
trap 'exit 75' TERM
heartbeats > /dev/null 2>&1 &
beats=$!
trap 'kill $beats $! 2> /dev/null || true; rm -rf "$work"' EXIT

# 1. The payload: in the environment, or too large for it.
if [ -n "${HYBRIDJOB_PAYLOAD_URL:-}" ]; then
  told GET payload
  cp "$work/api.body" "$work/payload"
else
  printf '%s' "$HYBRIDJOB_PAYLOAD" > "$work/payload"
fi
is_name='type == "string" and test("^[A-Za-z0-9._-]{1,100}$") and (test("^[.]+$") | not)'
jq -e "(.owner | $is_name) and (.repo | $is_name)" "$work/payload" > /dev/null 2>&1 ||
  fail 65 'the payload must be {"owner", "repo"}, as they are written on GitHub'
repository=$(jq -r '"\(.owner)/\(.repo)"' "$work/payload")

# 2. The checkpoint: where an earlier attempt came to; 204 when there was none.
told GET checkpoint
if [ "$status" = 200 ]; then
  cp "$work/api.body" "$work/counts"
else
  echo '{"page": 0, "pages": null, "issues": 0, "pullRequests": 0, "labels": {}}' > "$work/counts"
fi

# 3. Page after page. The oldest comes first, so that new ones move nothing onto pages already read.
while [ "$(jq '.page == .pages' "$work/counts")" = false ]; do
  page=$(($(jq .page "$work/counts") + 1))
  ask github -L -H 'Accept: application/vnd.github+json' \
    ${GITHUB_TOKEN:+-H "Authorization: Bearer $GITHUB_TOKEN"} \
    "$github/repos/$repository/issues?state=all&sort=created&direction=asc&per_page=100&page=$page"
  case $status in
    200) ;;
    403 | 429)
      pause=$(limited)
      [ -z "$pause" ] || fail 1 "GitHub's rate limit, at page $page of $repository" "$pause"
      fail 65 "GitHub answers 403 for $repository: give GITHUB_TOKEN the right to read its issues"
      ;;
    401) fail 65 "GitHub answers 401: GITHUB_TOKEN is wrong, expired or revoked" ;;
    404) fail 65 "GitHub answers 404: there is no $repository, or GITHUB_TOKEN may not see it" ;;
    410) fail 65 "GitHub answers 410: issues are switched off in $repository" ;;
    451) fail 65 "GitHub answers 451: $repository was taken down for legal reasons" ;;
    *) fail 1 "GitHub answers $status for page $page of $repository" ;; # retried, with backoff
  esac
  last=$(header link | sed -n 's/.*[?&]page=\([0-9]*\)[^>]*>; rel="last".*/\1/p')
  jq --slurpfile counts "$work/counts" --argjson page "$page" --argjson last "${last:-$page}" '
    reduce .[] as $each ($counts[0];
      if $each.pull_request then .pullRequests += 1
      else .issues += 1 | reduce $each.labels[].name as $name (.; .labels[$name] += 1) end
    ) | .page = $page | .pages = $last
  ' "$work/github.body" > "$work/next" 2> /dev/null ||
    fail 1 "GitHub's answer for page $page of $repository is no list of issues"
  mv "$work/next" "$work/counts"
  told PUT checkpoint "$work/counts"
  jq '{done: .page, total: .pages, message: "page \(.page) of \(.pages)"}' "$work/counts" \
    > "$work/progress"
  told PUT progress "$work/progress"
  echo "page $page of $repository"
  # Near the deadline the next attempt goes on, and this one is no failure.
  if [ "$(date +%s)" -ge "$stop_at" ]; then fail 1 "the deadline is near: it goes on" 1; fi
done

# 4. The result, by the API, as there is no telling how many labels there are.
jq '{result: {pages, issues, pullRequests, labels}}' "$work/counts" > "$work/result"
told PUT outcome "$work/result"
