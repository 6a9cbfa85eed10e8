#!/bin/bash
# The screens as a person has them: `shmallocctl top` in a terminal of tmux, with clients at work, keys pressed, the daemon killed and
# started again, the window made small; and the map of the heap, in the terminal, as XML, and as a browser draws it.
# Nothing is waited for by the clock: await looks at the terminal until what is wanted is there, or says what is.
set -euo pipefail
for tool in tmux xmllint; do
	command -v $tool >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
case $BUILD in */plain | */asan) ;; *) echo 'skipped: plain and asan builds only'; exit 77 ;; esac
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$BUILD" && pwd)
dir=$(mktemp -d /tmp/shmalloc-screen.XXXXXX)
instance=screen-$$
daemon=
clients=()
export SHMALLOC_SOCKET=$dir/sock TMUX_TMPDIR=$dir LC_ALL=C.UTF-8
unset SHMALLOC_HEAP SHMALLOC_DEBUG SHMALLOC_HARDEN NO_COLOR COLUMNS COLORTERM TMUX || true

clean_up() {
	trap - EXIT INT TERM
	tmux -L screen kill-server 2>/dev/null || true
	for pid in "${clients[@]}" $daemon; do
		kill -KILL "$pid" 2>/dev/null || true
	done
	wait 2>/dev/null || true
	rm -rf "$dir"
	rm -f /dev/shm/shmalloc."$instance".*
}
trap clean_up EXIT
trap 'clean_up; exit 130' INT TERM

screen() { tmux -L screen capture-pane -p -t "$1"; }

fail() {
	echo "screen: $1" >&2
	[ -z "${2:-}" ] || screen "$2" >&2
	exit 1
}

# A condition on the text of terminal $2, within a minute; $1 says what it is, the rest is the test, which reads the text.
await() {
	local what=$1 pane=$2 deadline=$((SECONDS + 60))
	shift 2
	until screen "$pane" | "$@" >/dev/null; do
		[ $SECONDS -lt $deadline ] || fail "never seen: $what" "$pane"
		read -r -t 0.05 <>"$dir/never" || true # between two looks at somebody else's screen
	done
}

press() { # pane, keys
	tmux -L screen send-keys -t "$@"
}

start_daemon() {
	"$build/shmallocd" --socket "$SHMALLOC_SOCKET" --instance "$instance" --size 512MiB 2>>"$dir/log" &
	daemon=$!
	disown # or the shell would tell of its death
	"$build/examples/hello" 'here' >/dev/null # attaching waits for the daemon
}

terminal() { # name, columns, lines, command
	tmux -L screen -f /dev/null new-session -d -s "$1" -x "$2" -y "$3" "env -u TMUX $4; echo \"status \$?\"; cat"
}

# The labels of the first rows, in their order: "drop make make".
rows() { awk '/LABEL/ {on = 1; next} /^$/ {on = 0} on {print $NF}' | head -n "$1" | paste -sd ' '; }
has_rows() { [ "$(rows "$1")" = "$2" ]; } # how many, which
pids_rise() { awk '/LABEL/ {on = 1; next} /^$/ {on = 0} on {if ($2 + 0 < last) bad = 1; last = $2 + 0; n++} END {exit bad || n < 4}'; }
pids_fall() { awk '/LABEL/ {on = 1; next} /^$/ {on = 0} on {if (n && $2 + 0 > last) bad = 1; last = $2 + 0; n++} END {exit bad || n < 4}'; }
held_falls() { # column HELD, in bytes
	awk '/LABEL/ {on = 1; next} /^$/ {on = 0}
		on {unit = $6 == "KiB" ? 1024 : $6 == "MiB" ? 1048576 : 1; held = $5 * unit
			if (n && held > last) bad = 1; last = held; n++}
		END {exit bad || n < 4}'
}
has_rate() { # of all requests, and of a client: a rate that is not known is '-', without a unit
	awk '/ [1-9][0-9]* requests\/s;/ {all = 1} / make$/ && $8 ~ /B$/ {one = 1} END {exit !(all && one)}'
}

# ---- the daemon and its clients, one of which has a name that is not fit for a terminal ----

tenant() { # label, MiB
	"$build/system/tenant" "$@" <"$dir/never" >"$dir/tenant" 2>&1 &
	clients+=($!)
	disown
}

mkfifo "$dir/never"
exec 3<>"$dir/never" # or who reads from it would wait for a writer
start_daemon
tenant drop 2
tenant work 9
tenant make 30
tenant make 20
tenant $'<b>&"\e[31m' 1

# ---- top ----

terminal top 120 40 "$build/shmallocctl top --interval 0.2"
await 'a row for each client' top grep -c ' make$'
await 'the bars' top grep -E '^live  *\[\|.*[0-9.]+ [KMG]iB +[0-9.]+ %$'
await 'five clients' top grep '^5 clients'
await 'a rate of requests' top has_rate
await 'the order by what is held' top held_falls
press top p
await 'the order by pid' top pids_rise
press top R
await 'the other way round' top pids_fall
press top R n
await 'the order by name' top grep 'LABELv'
await 'names in order' top has_rows 5 '<b>&"\x1b[31m drop make make work'
await 'the escape of a name, as letters' top grep -F '<b>&"\x1b[31m'
press top /
await 'a prompt for the filter' top grep '^filter: _'
press top -l DRO
await 'what is typed' top grep '^filter: DRO_'
press top Enter
await 'one row alone' top has_rows 5 drop
press top Enter
await 'details of that client' top grep -E '^pid +'"${clients[0]}"
await 'all of them' top grep 'requests refused'
press top Escape
await 'the list again' top has_rows 5 drop
press top Escape
await 'all rows again' top grep ' work$'
press top '?'
await 'help' top grep 'sort by what is idle'
press top '?' Space
await 'a pause' top grep 'paused$'
press top Space +
await 'another interval' top grep 'every 0.25 s$'

# the daemon dies, and comes back: the rows stay, and go on
kill -KILL "$daemon"
await 'that the daemon is away' top grep -E '^Daemon away, since [0-9]{2}:[0-9]{2}:[0-9]{2}: '
await 'the rows meanwhile' top grep ' make$'
start_daemon
await 'the daemon again' top grep '^5 clients'
await 'rates again' top has_rate

# a daemon that is stopped does not stop the screen
kill -STOP "$daemon"
press top '?'
await 'help without a daemon' top grep 'sort by what is idle'
press top '?'
kill -CONT "$daemon"

# other sizes
for size in 80x24 40x10 24x5 10x3 200x50 120x40; do
	tmux -L screen resize-window -t top -x "${size%x*}" -y "${size#*x}"
	if [ "$size" = 10x3 ]; then
		await "a word at $size" top grep '^terminal t'
		continue
	fi
	await "a row at $size" top grep -E '^( *[0-9]+ +)?[0-9]* '
	[ "${size%x*}" -lt 40 ] || await "a label at $size" top grep -E ' (make|drop|work)$'
	[ "$(screen top | awk '{print length($0)}' | sort -n | tail -n 1)" -le "${size%x*}" ] || fail "too wide at $size" top
	await "the foot at $size" top grep -E '^q quit'
done
press top q
await 'the end' top grep '^status 0$'
! screen top | grep -q 'q quit' || fail 'the screen is not given back' top

# signals give the terminal back; a terminal that cannot show a screen is told so, and so is who has no daemon
for signal in TERM INT HUP; do
	terminal "by-$signal" 80 24 "bash -c 'stty -g >$dir/before; sh -c \"echo \\\$\\\$ >$dir/pid; exec $build/shmallocctl top\"; stty -g >$dir/after; cmp $dir/before $dir/after && echo the same'"
	await "top, before SIG$signal" "by-$signal" grep ' make$'
	kill "-$signal" "$(cat "$dir/pid")"
	await "the terminal after SIG$signal" "by-$signal" grep '^the same$'
	! screen "by-$signal" | grep -q 'q quit' || fail "the screen is not given back after SIG$signal" "by-$signal"
done
terminal dumb 80 24 "env TERM=dumb $build/shmallocctl top"
await 'that a dumb terminal will not do' dumb grep 'cannot show a screen: use --once'
await 'status 2' dumb grep '^status 2$'
terminal none 80 24 "$build/shmallocctl --socket $dir/none top"
await 'that there is no daemon' none grep 'no daemon listens at'
await 'status 3' none grep '^status 3$'

# frames for scripts
COLUMNS=100 "$build/shmallocctl" top --frames 2 --interval 0.1 >"$dir/frames"
[ "$(grep -c '^Heap default' "$dir/frames")" = 2 ] || fail "frames: $(cat "$dir/frames")"
! grep -q $'\e' "$dir/frames" || fail 'frames have an escape'

# ---- the map ----

terminal map 100 60 "env TERM=xterm-256color $build/shmallocctl heapmap"
await 'the map' map grep '▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀'
await 'its figures' map grep 'external fragmentation'
tmux -L screen capture-pane -e -p -t map | grep -q $'\e\[[0-9;]*48;5;' || fail 'the map has no colours' map
terminal plain 100 60 "env TERM=xterm-256color NO_COLOR=1 $build/shmallocctl heapmap --by owner"
await 'the map in letters' plain grep '1111111111'
! screen plain | grep -q '▀' || fail 'colours in spite of NO_COLOR' plain

for by in kind class owner; do
	"$build/shmallocctl" heapmap --by $by --format svg --output "$dir/$by.svg"
	xmllint --noout "$dir/$by.svg" || fail "the SVG by $by is not well-formed"
done
"$build/shmallocctl" heapmap --format html --by class >"$dir/map.html"
xmllint --html --noout "$dir/map.html" 2>&1 | grep -vE 'Tag (svg|path|g|rect|text|title|nav) invalid|^ *\^|^<|Unexpected' | grep -E 'error' &&
	fail 'the page is not well-formed'

# A browser draws it: the picture has the colours of the legend, and the script of the page runs.
browse() { # output, option..., address
	local profile=$dir/profile
	timeout 120 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
		--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --user-data-dir="$profile" "${@:2}" \
		>"$1" 2>/dev/null || fail "the browser failed: ${*:2}"
}
if command -v chromium >/dev/null; then
	browse "$dir/none" --window-size=1600,1000 --screenshot="$dir/map.png" "file://$dir/kind.svg"
	[ "$(wc -c <"$dir/map.png")" -gt 20000 ] || fail 'the picture is empty'
	# the wheel zooms to where the pointer is, a key moves, a double click shows all again, and a cell says what it is
	sed '/<\/body>/d; /<\/html>/d' "$dir/map.html" >"$dir/hands.html"
	cat >>"$dir/hands.html" <<-'HANDS'
		<script>
		const said = [], size = () => view.viewBox.baseVal.width, place = () => view.viewBox.baseVal.x;
		const path = cells.querySelector('path'), r = path.getBoundingClientRect(), x = r.left + 2, y = r.top + 2;
		const send = (type, make, options) => path.dispatchEvent(new make(type, {bubbles: true, cancelable: true, clientX: x, clientY: y, ...options}));
		send('pointermove', PointerEvent, {});
		said.push('tip ' + (!tip.hidden && /^page 1, /.test(tip.textContent)));
		const before = at({clientX: x, clientY: y}), all = size();
		send('wheel', WheelEvent, {deltaY: -100});
		const after = at({clientX: x, clientY: y});
		said.push('zoom ' + (size() < all * 0.8 && Math.abs(before[0] - after[0]) < 0.01 && Math.abs(before[1] - after[1]) < 0.01));
		const left = place();
		view.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
		said.push('move ' + (place() > left));
		send('dblclick', MouseEvent, {});
		said.push('home ' + (size() === all));
		document.title = said.join(', ');
		</script>
	HANDS
	browse "$dir/dom" --dump-dom "file://$dir/hands.html#owner"
	grep -q 'class="report-map by-owner"' "$dir/dom" || fail 'the page is not coloured by owner'
	grep -q 'data-by="owner" aria-pressed="true"' "$dir/dom" || fail 'the button of owner is not pressed'
	grep -q '<title>tip true, zoom true, move true, home true</title>' "$dir/dom" ||
		fail "the page in a hand: $(grep -o '<title>[^<]*' "$dir/dom" | head -n 1)"
	cp "$dir/map.png" "${SCREEN_PNG:-/dev/null}"
else
	echo 'skipped: no chromium: nobody has looked at the map'
fi
echo 'screen: all was seen'
