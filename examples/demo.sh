#!/usr/bin/env bash
# One picture through the whole of sdq: Redis, server, worker and client on this machine.
# `make demo` runs it. Everything it makes is out.png and the folder .demo.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly prompt="a red circle on a blue background"
readonly home="$PWD/.demo" log="$PWD/.demo/up.log"
readonly ready_seconds=600 stop_seconds=30
for name in "${!SDQ_@}"; do unset "$name"; done # a setting of yours is none of the demo's

# Only sdq's own processes get SDQ_HOME: `left_over` finds them by it.
sdq() { SDQ_HOME="$home" .venv/bin/sdq "$@"; }

left_over() { # process ids, a line each; only Linux can tell
    grep -lszF "SDQ_HOME=$home" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3 || true
}

fail() {
    printf 'demo: %s\n' "$1" >&2
    [ ! -s "$log" ] || tail -n 20 "$log" >&2
    exit 1
}

up=""
stop() { # ends sdq up; the second call does nothing
    local pid="$up" waited=0
    up=""
    [ -n "$pid" ] || return 0
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null && [ "$waited" -lt $((stop_seconds * 10)) ]; do
        sleep 0.1
        waited=$((waited + 1))
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid"
}
trap 'stop || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir -p "$home"
: >"$log" # or the ready line of the last run would be read
echo "starting Redis, a server and a worker (log: .demo/up.log) …"
SECONDS=0
SDQ_HOME="$home" .venv/bin/sdq up --port 0 </dev/null >"$log" 2>&1 &
up=$!
until address="$(sed -n 's/^sdq is ready at \([^,]*\),.*/\1/p' "$log")" && [ -n "$address" ]; do
    kill -0 "$up" 2>/dev/null || fail "sdq up ended before it was ready:"
    [ "$SECONDS" -lt "$ready_seconds" ] || fail "sdq up was not ready after $ready_seconds s:"
    sleep 0.1
done
sed -n 's/^sdq is ready/ready after '"$SECONDS"' s/p' "$log"

echo "sdq generate \"$prompt\" -o out.png"
TIMEFORMAT="the command took %R s"
time sdq generate "$prompt" -o out.png --force --server "$address" >/dev/null || fail "no picture:"

stop || fail "sdq up did not end as it should:"
left="$(left_over)"
[ -z "$left" ] || fail "processes were left behind: $left"
echo "all stopped, nothing left running; run it again, and the picture comes from the library"
