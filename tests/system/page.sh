#!/bin/bash
# The page of the HTTP listener in a real browser, over a daemon with clients that are busy: what it shows, whether it can be worked, and
# whether it goes on when the daemon was killed and started anew. The browser is driven through chromedriver (WebDriver).
#
# With SHOTS=DIRECTORY pictures of it are left there.
set -euo pipefail
BUILD=${BUILD:-build/plain}
case $BUILD in */plain) ;; *) echo 'skipped: page.sh looks at the plain build only'; exit 77 ;; esac
for program in curl jq chromedriver chromium; do
	command -v $program >/dev/null || { echo "skipped: no $program"; exit 77; }
done
dir=$(mktemp -d /tmp/shmalloc-page.XXXXXX)
instance=${TEST_INSTANCE:-page}-$$
export SHMALLOC_SOCKET=$dir/sock
unset SHMALLOC_HEAP SHMALLOC_DEBUG SHMALLOC_HARDEN NOTIFY_SOCKET || true
pids=() driver='' daemon='' session=''

clean_up() {
	trap - EXIT
	[ -z "$session" ] || curl -s -m 10 -X DELETE "$session" >/dev/null || true
	exec 3>&- || true
	for pid in $driver $daemon "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait 2>/dev/null || true
	rm -rf "$dir"
	rm -f /dev/shm/shmalloc."$instance".*
}
trap clean_up EXIT
trap 'echo "page: line $LINENO fails"' ERR
fail() {
	echo "page: $*"
	grep -v 'at its limit' "$dir/log" | sed 's/^/    /' | tail -n 20 || true
	exit 1
}
until_true() { # SECONDS COMMAND...: tries again until it succeeds
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.1
	done
}

# ---- the daemon and its clients ----

start_daemon() { # ADDRESS
	"$BUILD/shmallocd" --socket "$SHMALLOC_SOCKET" --instance "$instance" --size 512MiB --client-limit 48MiB --http "$1" 2>>"$dir/log" &
	daemon=$!
	until_true 30 grep -q 'serves on' "$dir/log" || fail 'the daemon does not come up'
}
start_client() { # LABEL KIB
	"$BUILD/system/load" "$1" "$2" <&4 >"$dir/client$2" 2>&1 &
	pids+=($!)
	until_true 60 grep -q ready "$dir/client$2" || fail "client '$1' does not come up"
}
: >"$dir/log"
start_daemon 127.0.0.1:0
url=$(grep -o 'http://[^ ]*' "$dir/log" | head -n 1)
mkfifo "$dir/until"
exec 3<>"$dir/until" 4<"$dir/until" # clients work until nobody can write to it any more
label='<img src=x onerror=alert(1)> & "worker"'
start_client "$label" 6001
start_client quiet 2002
start_client big 30003
start_client greedy 60004 # more than it may have
exec 4<&-

# ---- without a browser ----

get() { curl -sf -m 20 "$url$1"; }
get /stats.json | jq -e --arg who "$label" '
	.schema >= 1 and .heap == "default" and (.clients | length) == 4 and (.clients | map(.label) | index($who)) != null and
	.stats.live_bytes + .stats.cached_bytes + .stats.slots_free_bytes + .stats.tail_bytes + .stats.written_off_bytes +
	.stats.quarantined_bytes == .stats.span_bytes' >/dev/null || fail "/stats.json: $(get /stats.json | head -c 2000)"
get /map.json | jq -e '(.cells | length) > 100 and .cells[0][0] == 1 and
	([range(1; .cells | length) as $i | .cells[$i - 1][0] + .cells[$i - 1][1] == .cells[$i][0]] | all)' >/dev/null || fail '/map.json has gaps'
get /metrics >"$dir/metrics"
[ "$(grep -c '^shmalloc_client_held_bytes{' "$dir/metrics")" = 4 ] || fail '/metrics has not each client'
if command -v promtool >/dev/null; then promtool check metrics <"$dir/metrics" || fail 'promtool finds something'; fi

# ---- the browser ----

# It may not have these privileges as root, and a container has none to give it.
sandbox=$([ "$(id -u)" = 0 ] && echo '"--no-sandbox",' || true)
chromedriver --port=0 >"$dir/driver" 2>&1 &
driver=$!
until_true 30 grep -q 'on port [1-9]' "$dir/driver" || fail 'chromedriver does not come up'
hub=http://127.0.0.1:$(grep -o 'on port [1-9][0-9]*' "$dir/driver" | grep -o '[0-9]*$')
session=$(curl -s -m 60 "$hub/session" -d '{"capabilities": {"alwaysMatch": {"goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": {
	"args": ["--headless=new", '"$sandbox"' "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1400,2200",
	"--user-data-dir='"$dir"'/profile"]}}}}' | jq -r .value.sessionId)
[ "$session" != null ] || fail "no session: $(tail -n 3 "$dir/driver")"
session=$hub/session/$session

post() { curl -s -m 60 "$session/$1" -d "$2"; }
js() { post execute/sync "$(jq -n --arg script "$1" '{script: $script, args: []}')" | jq -c .value; }
holds() { [ "$(js "return !!($1)")" = true ]; }
must() { # WHAT EXPRESSION: it becomes true
	until_true 30 holds "$2" || fail "$1 ($(js "return document.getElementById('state').textContent"))"
}
shot() { [ -z "${SHOTS:-}" ] || curl -s -m 60 "$session/screenshot" | jq -r .value | base64 -d >"$SHOTS/$1.png"; }
click() { # CSS: a click of the mouse, by the browser
	local id
	id=$(post element "$(jq -n --arg css "$1" '{using: "css selector", value: $css}')" | jq -r '.value[]')
	[ "$(post "element/$id/click" '{}' | jq -r .value)" = null ] || fail "cannot click on $1"
}

post url "{\"url\": \"$url/\"}" >/dev/null
must 'the page does not come alive' "document.getElementById('state').textContent === 'live'"
must 'not all clients are shown' "document.querySelectorAll('#clients tbody tr').length === 4"
must "a client's label is not shown as it is" "[...document.querySelectorAll('#clients td.label')].some(td => td.textContent === $(jq -n --arg l "$label" '$l'))"
holds "document.querySelectorAll('#clients img, #clients script').length === 0" || fail "a client's label has become markup"
must 'no rates are shown' "[...document.querySelectorAll('#clients tbody tr')].some(tr => /MiB\\/s|KiB\\/s/.test(tr.textContent))"
must 'refusals are not shown' "/[1-9]/.test(document.querySelector('#refused dd').textContent)"
must 'no latencies are shown' "/refills: half/.test(document.getElementById('latency').textContent)"

# The map has colours of what is in the heap, and another choice has others.
colours="(() => { const c = document.getElementById('map'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, s = new Set();
	for (let i = 0; i < d.length; i += 4 * 37) s.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return s; })()"
must 'the map is blank' "$colours.size >= 3 && $colours.has(0x009e73)"
js "const s = document.getElementById('by'); s.value = 'owner'; s.dispatchEvent(new Event('change'))" >/dev/null
must 'the map does not show owners' "$colours.has(0xe69f00) && $colours.has(0x0072b2)"
must 'no owner is named' "document.getElementById('legend-map').textContent.includes('big (pid ')"
shot owners
js "const s = document.getElementById('by'); s.value = 'class'; s.dispatchEvent(new Event('change'))" >/dev/null
must 'the map does not show block sizes' "$colours.has(0x46327e)"
js "const s = document.getElementById('by'); s.value = 'kind'; s.dispatchEvent(new Event('change'))" >/dev/null

# Zoom, and details of what the mouse points at.
click '#zoom-in'
click '#zoom-in'
must 'zooming does nothing' "/^pages [1-9]/.test(document.getElementById('map-note').textContent)"
id=$(post element '{"using": "css selector", "value": "#map"}' | jq -r '.value[]')
post actions "{\"actions\": [{\"type\": \"pointer\", \"id\": \"mouse\", \"actions\": [{\"type\": \"pointerMove\", \"duration\": 0, \"x\": 0, \"y\": 0,
	\"origin\": {\"element-6066-11e4-a52e-4f735466cecf\": \"$id\"}}]}]}" >/dev/null
must 'pointing shows nothing' "/^pages? [0-9,]+.*iB\\)/.test(document.getElementById('detail').textContent)"
shot zoomed
post element/"$id"/value '{"text": "\ue011"}' >/dev/null # the key Home
must 'the whole map does not come back' "/^pages 0 to/.test(document.getElementById('map-note').textContent)"

# Sorting, by a click on a heading, and again; and the filter.
labels="[...document.querySelectorAll('#clients td.label')].map(td => td.textContent)"
must 'not sorted by bytes held' "document.querySelector('#clients th[aria-sort=descending] button').dataset.key === 'held_bytes'"
click '#clients button[data-key=label]'
must 'a click does not sort' "$labels.join() === [...$labels].sort((a, b) => a.localeCompare(b)).join() && $labels.length === 4"
click '#clients button[data-key=label]'
must 'a second click does not turn it round' "$labels.join() === [...$labels].sort((a, b) => b.localeCompare(a)).join() && $labels.length === 4"
id=$(post element '{"using": "css selector", "value": "#filter"}' | jq -r '.value[]')
post element/"$id"/value '{"text": "qui"}' >/dev/null
must 'the filter does not filter' "$labels.join() === 'quiet'"
post element/"$id"/clear '{}' >/dev/null
must 'the filter stays' "$labels.length === 4"

# Pause, and on again.
click '#pause'
must 'it does not pause' "document.getElementById('state').textContent === 'paused'"
up=$(js "return document.getElementById('uptime').textContent")
until_true 10 bash -c "[ \"\$(curl -sf '$url/stats.json' | jq '.stats.uptime_ms > 0')\" = true ]"
[ "$(js "return document.getElementById('uptime').textContent")" = "$up" ] || fail 'it goes on while it is paused'
click '#pause'
must 'it does not go on' "document.getElementById('state').textContent === 'live'"
shot light

# The daemon is killed: the page says so. Another one comes: the page goes on with it.
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
must 'the page does not notice that the daemon is away' "document.getElementById('state').textContent.startsWith('away')"
shot away
: >"$dir/log"
start_daemon "${url#http://}"
must 'the page does not go on after a restart' "document.getElementById('state').textContent === 'live' && document.querySelectorAll('#clients tbody tr').length === 4"
must 'it shows what the last daemon said' "/^up [0-9]+ s/.test(document.getElementById('uptime').textContent)"

# Dark, and narrow.
cdp() { post goog/cdp/execute "{\"cmd\": \"$1\", \"params\": $2}" >/dev/null; }
cdp Emulation.setEmulatedMedia '{"features": [{"name": "prefers-color-scheme", "value": "dark"}]}'
must 'it does not go dark' "getComputedStyle(document.body).backgroundColor === 'rgb(13, 17, 23)'"
shot dark
cdp Emulation.setDeviceMetricsOverride '{"width": 380, "height": 2400, "deviceScaleFactor": 1, "mobile": true}'
must 'it is wider than a narrow screen' "innerWidth === 380 && document.documentElement.scrollWidth <= 380"
shot narrow

# Nothing was blocked or went wrong, but for requests while the daemon was away.
post se/log '{"type": "browser"}' | jq -r '.value[] | select(.level == "SEVERE") | .message' | grep -v -E 'ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE' >"$dir/console" || true
[ ! -s "$dir/console" ] || fail "the browser says: $(cat "$dir/console")"
echo 'page: all is shown'
