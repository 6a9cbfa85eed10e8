# The rows of programs.sh, which reads this file. A row is a function p_NAME, run in a directory of its own; what it prints, and with what
# status it ends, is compared. `prepare_NAME`, if there is one, makes the input once, in $input; needs_NAME is a program or a file without
# which there is no row; rounds_NAME is how often it runs if not ROUNDS times. `on` before a command puts it on the heap, or not.
#
# Most of them are there for something of their own: threads (xz, convert, memcached, sort, java), plug-ins that are opened by dlopen (convert,
# pdf, python), children that go on from the memory that a fork has left them (bash, tmux, python), large blocks (convert, pdf, zstd), other
# allocators inside (redis, node, java), privileges that are dropped (memcached), trees of short processes (make, cmake, git, bash).
# shellcheck shell=bash disable=SC2034,SC2154

needs_sqlite=sqlite3
p_sqlite() {
	on sqlite3 t.db <<-'SQL'
		pragma journal_mode = wal;
		create table t(id integer primary key, name text, n integer);
		with recursive c(i) as (select 1 union all select i + 1 from c where i < 100000)
			insert into t select i, 'name' || (i * 7919 % 100003) || hex(i * i), i * 31 % 977 from c;
		create index by_name on t(name);
		select n, count(*), max(name) from t group by n order by 2 desc, 1 limit 20;
		select count(*), sum(length(a.name)) from t a join t b on a.n = b.id where a.name > b.name;
		select group_concat(name) from (select name from t order by name limit 50);
		delete from t where n % 3 = 0;
		vacuum;
		pragma integrity_check;
	SQL
}
# CPython's own regression tests, all but these; what needs a network, a screen or much memory skips itself.
python_fails='test_ensurepip test_idle' # on glibc, too: Debian has no bundled pip, no Tk here
python_sees=test_pass_fds_redirected # which descriptors a new program has: the library's socket is one of them
python_slow='test_asyncio test_compileall test_concurrent_futures test_cppext test_eintr test_faulthandler test_ftplib test_gdb test_imaplib
	test_largefile test_logging test_multiprocessing_forkserver test_multiprocessing_main_handling test_multiprocessing_spawn test_poll test_poplib
	test_queue test_regrtest test_selectors test_signal test_socket test_source_encoding test_ssl test_threadsignals test_venv test_wait3
	test_wait4 test_xmlrpc' # most of the time they wait, or compile
needs_python=/usr/lib/python3.11/test/regrtest.py rounds_python=1
# Its own allocator is off, so that small objects are malloc's, too. A process for each module: one that has run many has objects for the
# garbage collector to look at again and again. What is run in the background may have SIGINT ignored, which some tests raise. Times
# differ, so the results by module are compared.
p_python() {
	# shellcheck disable=SC2086
	on env --default-signal=INT PYTHONMALLOC=malloc /usr/bin/python3 -m test -j1 --timeout 600 -i $python_sees -x $python_fails $python_slow >log 2>&1
	local status=$?
	grep -E '^(All [0-9]+ tests OK|[0-9]+ tests? (OK|failed|skipped|altered))|^    test_' log
	return $status
}
needs_perl=perl
p_perl() {
	on perl -e 'my %h; my $s = 1; for my $i (1 .. 400000) { $s = ($s * 1103515245 + 12345) & 0x7fffffff; push @{$h{$s % 50021}}, "v$s" }
		my $t = 0; for my $k (sort { @{$h{$b}} <=> @{$h{$a}} || $a <=> $b } keys %h) { $t += length join ",", sort @{$h{$k}} }
		my $text = join " ", map { "word" . ($_ * 7 % 1009) } 1 .. 200000; my %c; $c{$1}++ while $text =~ /(\w+)/g;
		print "$t ", scalar(keys %h), " ", join(",", (sort keys %c)[0 .. 20]), "\n"'
}
needs_lua=lua5.4
p_lua() {
	on lua5.4 -e 'local t, s = {}, 1
		for i = 1, 400000 do s = (s * 1103515245 + 12345) & 0x7fffffff; t[i] = {key = "k" .. s % 60013, list = {s, s % 7, tostring(s)}} end
		table.sort(t, function(a, b) if a.key == b.key then return a.list[1] < b.list[1] end return a.key < b.key end)
		local c = 0; for i = 1, #t, 1000 do c = (c * 31 + t[i].list[1]) & 0xffffffff; print(t[i].key) end print(c)'
}
needs_gcc=gcc
p_gcc() {
	local f
	for f in client/tcache.c client/channel.c shm/pageheap.c shm/check_meta.c daemon/requests.c; do
		(cd "$top" && on gcc -std=c11 -D_GNU_SOURCE -DSHMALLOC_VERSION='"x"' -I. -I"$BUILD" -O2 -g -Wall -c "$f" -o "$OLDPWD/${f##*/}.o") || return
	done
	sha256sum ./*.o
}
needs_git=git
prepare_git() { # 300 commits over 400 files
	git init -q -b main origin && cd origin || return
	for i in $(seq 400); do seq "$i" $((i * 3)) >"file$i"; done
	git add . && git commit -q -m start
	for i in $(seq 300); do
		echo "change $i" >>"file$((i * 37 % 400 + 1))"
		git commit -q -a -m "commit $i"
	done
	cd ..
}
p_git() {
	on git clone -q --no-local "$input/origin" clone && cd clone || return
	on git log --stat --format='%h %s' | sha256sum
	on git gc -q --aggressive --prune=now && on git fsck --full --strict 2>&1 && on git blame file38 | cut -c 1-60
	on git diff HEAD~200 | sha256sum
	find .git/objects -name '*.pack' | wc -l
}
needs_redis=redis-benchmark # on its own it has jemalloc, not glibc's malloc
p_redis() {
	local server i
	on redis-server --port 0 --unixsocket "$PWD/sock" --save '' --appendonly no --daemonize no --enable-debug-command local >log 2>&1 &
	server=$!
	for i in $(seq 200); do redis-cli -s "$PWD/sock" ping >/dev/null 2>&1 && break; read -r -t 0.05 <> <(:) || :; done
	redis-benchmark -s "$PWD/sock" -q -n 30000 -r 20000 -d 200 -c 20 -t set,get,lpush,lrange_100,sadd,hset >bench 2>&1
	redis-cli -s "$PWD/sock" flushall
	for i in $(seq 50); do redis-cli -s "$PWD/sock" --raw eval 'for i = 1, 400 do redis.call("hset", "h" .. ARGV[1] % 7, "f" .. i * ARGV[1], string.rep("x", i)) end return redis.call("dbsize")' 0 "$i"; done | sha256sum
	redis-cli -s "$PWD/sock" --raw hlen h3
	redis-cli -s "$PWD/sock" debug digest
	redis-cli -s "$PWD/sock" shutdown nosave >/dev/null 2>&1
	wait "$server"
}
needs_jq=jq
prepare_jq() { seq 120000 | awk '{printf "{\"id\":%d,\"name\":\"n%d\",\"tags\":[\"a%d\",\"b\"],\"v\":{\"x\":%d.5}}\n", $1, $1 * 7919 % 10007, $1 % 13, $1 % 101}' >in.json; }
p_jq() { on jq -s -c 'group_by(.tags[0]) | map({k: .[0].tags[0], n: length, s: (map(.v.x) | add), top: (sort_by(.name) | .[0:3] | map(.name))})' "$input/in.json"; }
needs_xz=xz
prepare_xz() { seq 500000 | awk '{print $1, $1 * 7919 % 100003}' >in; }
p_xz() { on xz -T2 -6 --block-size=1MiB -k -c "$input/in" >out.xz && sha256sum <out.xz && on xz -d -c out.xz | sha256sum; }
needs_pdf=pdftoppm
prepare_pdf() { # pages of text and lines, by ghostscript
	{ echo '%!PS'; for i in $(seq 12); do echo "/Times-Roman findfont 11 scalefont setfont"; for y in $(seq 40 14 760); do echo "40 $y moveto (page $i line $y: $((i * y * 7919)) of some text that is set in a font) show 0 $y moveto 600 $((y + i)) lineto stroke"; done; echo showpage; done; } >in.ps
	gs -q -dNOPAUSE -dBATCH -sDEVICE=pdfwrite -sOutputFile=in.pdf in.ps
}
p_pdf() { on pdftoppm -r 100 "$input/in.pdf" page && sha256sum page*.ppm; }
needs_node=node
p_node() {
	on node -e 'const m = new Map(); for (let i = 0; i < 300000; i++) m.set("k" + i * 7919 % 100003, {i, s: "v".repeat(i % 50)});
		const b = []; for (let i = 0; i < 2000; i++) b.push(Buffer.alloc(1 + i * 37 % 60000, i & 255));
		const h = require("crypto").createHash("sha256"); for (const x of b) h.update(x);
		console.log(m.size, JSON.stringify([...m.entries()]).length, h.digest("hex"),
			require("zlib").gzipSync(Buffer.concat(b)).length, require("child_process").execSync("echo from a child").toString().trim())'
}
needs_java=java
prepare_java() { cat >Words.java <<-'J'
	import java.util.*;
	public class Words { public static void main(String[] a) throws Exception {
		TreeMap<String, Integer> m = new TreeMap<>(); for (int i = 0; i < 300000; i++) m.merge("w" + (i * 7919L % 5003), 1, Integer::sum);
		java.util.zip.Deflater d = new java.util.zip.Deflater(); byte[] in = m.toString().getBytes(), out = new byte[1 << 20];
		d.setInput(in); d.finish(); System.out.println(m.size() + " " + in.length + " " + d.deflate(out));
		Thread[] t = new Thread[30]; for (int i = 0; i < 30; i++) { t[i] = new Thread(() -> java.nio.ByteBuffer.allocateDirect(1 << 20)); t[i].start(); }
		for (Thread x : t) x.join();
	} }
	J
}
p_java() { on java -Xmx256m -Xshare:auto "$input/Words.java"; }
needs_sort=sort
p_sort() { seq 400000 | awk '{print $1 * 7919 % 1000003, "line"}' | on sort --parallel=2 -k2,2 -k1,1n | sha256sum; }
needs_awk=awk
p_awk() { seq 200000 | on awk '{c["k" $1 * 7919 % 30011] = c["k" $1 * 7919 % 30011] " " $1} END {for (k in c) n += length(c[k]); print n, c["k5"]}'; }

needs_bash=bash
prepare_bash() { # as configure does it: pipes, subshells, here-documents and results of commands, out of a shell with much in its memory
	cat >script <<-'S'
		declare -A table
		for ((i = 0; i < 10000; i++)); do table[k$((i * 7919 % 100003))]="value $i"; done
		sum() { local -n of=$1; local key n=0; for key in "${!of[@]}"; do ((n += ${#of[$key]})); done; echo $n; }
		check() { # in a child that writes to what it has inherited, and beyond
			echo "checking for $1... $(
				for ((j = $1; j < 10000; j += 50)); do table[k$((j * 7919 % 100003))]+=" changed by $1"; table[new$j]=$j; done
				unset "table[new$1]"
				sum table
			)"
		}
		echo "before: ${#table[@]} $(sum table)"
		for i in 0 1 2 3 4 5 6 7; do check $i; done
		for ((i = 0; i < 60; i++)); do
			x=$(echo "$i" | while read -r n; do echo $((n * 2)); done)
			(table[k0]=$x; [ "${table[k0]}" = $((i * 2)) ] && exit 3; exit 4)
			[ $? = 3 ] || echo "the subshell has lost $i"
		done
		coproc { while read -r line; do echo "${table[$line]} ${#table[@]}"; table[of the coprocess$line]=1; done; }
		for i in 1 2 3; do echo "k$((i * 7919))" >&"${COPROC[1]}"; read -r line <&"${COPROC[0]}"; echo "$line"; done
		eval "exec ${COPROC[1]}>&-"; wait
		for i in 1 2 3 4; do (for ((j = 0; j < 3000; j++)); do mine[j]="$i $j"; done; echo "$i ${#mine[@]} ${mine[*]: -1}" >"out$i") & done; wait
		cat out1 out2 out3 out4 - <<-END | sort -r | tr a-z A-Z
			a here-document of ${#table[@]}
		END
		echo "after: ${#table[@]} $(sum table)"
	S
}
p_bash() { on bash "$input/script"; }
needs_make=make
prepare_make() { # sources, headers that are made, a library; two jobs at a time
	local i
	for i in $(seq 24); do echo "#include \"all.h\"
		int f$i(int n) { return n < 2 ? $i : g(n) + f$((i % 24 + 1))(n - 1); }" >"f$i.c"; done
	echo '#include <stdio.h>
		#include "all.h"
		int main(void) { printf("%d\n", f7(1000)); return 0; }' >main.c
	cat >Makefile <<-'M'
		NAMES := $(sort $(foreach i,$(shell seq 24),f$(i)))
		result: main.o libf.a ; $(CC) $^ -o $@
		libf.a: $(NAMES:%=%.o) ; $(AR) rcsD $@ $^
		%.o: %.c all.h ; $(CC) -O1 -c $< -o $@
		all.h: $(NAMES:%=%.part) ; (echo 'static inline int g(int n) { return n * 3 % 7; }'; cat $(sort $^)) >$@
		%.part: %.c ; n=`basename $< .c`; echo "int $$n(int n);" | sed 's/  */ /g' >$@
		-include $(NAMES:%=%.none)
		.INTERMEDIATE: $(NAMES:%=%.part)
	M
}
p_make() { cp "$input"/* . && on make -s -j2 && ./result && sha256sum ./*.o libf.a; }
needs_cmake=cmake
prepare_cmake() {
	cat >CMakeLists.txt <<-'C'
		cmake_minimum_required(VERSION 3.18)
		project(words CXX)
		foreach(i RANGE 40)
			file(WRITE ${CMAKE_BINARY_DIR}/word${i}.cpp "#include <string>\nstd::string word${i}() { return \"word${i}\"; }\n")
		endforeach()
		file(GLOB sources ${CMAKE_BINARY_DIR}/word*.cpp)
		list(LENGTH sources n)
		string(REGEX REPLACE "[^0-9]+" "," numbers "${sources}")
		message("${n} sources")
		add_library(words STATIC ${CMAKE_BINARY_DIR}/word1.cpp ${CMAKE_BINARY_DIR}/word2.cpp)
		add_executable(say main.cpp)
		target_link_libraries(say words)
	C
	cat >main.cpp <<-'C'
		#include <algorithm>
		#include <iostream>
		#include <map>
		#include <regex>
		#include <string>
		#include <vector>
		std::string word1(); std::string word2();
		int main() {
			std::map<std::string, std::vector<int>> m;
			for (int i = 0; i < 20000; i++) m[word1() + std::to_string(i * 7919 % 1009)].push_back(i);
			std::regex last("([0-9]+)$"); std::smatch found; long n = 0;
			for (auto &[key, list] : m) if (std::regex_search(key, found, last)) n += std::stol(found[1]) * (long)list.size();
			std::cout << word2() << " " << m.size() << " " << n << "\n";
		}
	C
}
p_cmake() {
	on cmake -S "$input" -B . -DCMAKE_BUILD_TYPE=Release 2>&1 | grep -c . && on cmake --build . >log || return
	on ./say && sha256sum say ./*.a
}
needs_clang=clang
p_clang() { on clang -x c++ -std=c++17 -O2 -g -c "$top/client/examples/containers.cpp" -I"$top/client" -o a.o && sha256sum a.o; }
needs_convert=/usr/bin/convert-im6.q16
p_convert() { # its formats are plug-ins; threads share the work
	on /usr/bin/convert-im6.q16 -limit thread 2 -seed 7 -size 1200x900 plasma:tomato-steelblue \
		-blur 0x3 -resize 70% -rotate 17 -sharpen 0x2 -colors 64 -strip a.png
	sha256sum a.png
}
needs_memcached=memcached
prepare_memcached() {
	cat >load.pl <<-'P'
		use IO::Socket::UNIX;
		my ($path, $from) = @ARGV;
		my ($s, $n);
		for (1 .. 400) { $s = IO::Socket::UNIX->new(Peer => $path) and last; select undef, undef, undef, 0.02 }
		die "no server: $!" if !$s;
		sub said { my $line = <$s>; $line =~ shift or die "it says $line" }
		for my $i ($from .. $from + 4999) {
			my $v = "v$i" x (1 + $i * 37 % 900);
			print $s "set k$i 0 0 ", length $v, "\r\n$v\r\n"; said(qr/^STORED/);
			next if $i % 3;
			print $s "get k$i\r\n"; said(qr/^VALUE k$i 0 @{[length $v]}/);
			read $s, my $got, 2 + length $v; said(qr/^END/);
			$got eq "$v\r\n" or die "k$i differs";
			$n += length $got;
			if ($i % 2) { print $s "delete k$i\r\n"; said(qr/^DELETED/) }
		}
		print "$from $n\n";
	P
	cat >end.pl <<-'P'
		use IO::Socket::UNIX;
		my $s = IO::Socket::UNIX->new(Peer => shift) or die "no server: $!";
		print $s "stats\r\n";
		while (<$s>) {
			last if /^END/;
			print "$1 $2\n" if /^STAT (curr_items|bytes|cmd_set|get_hits) (\d+)/;
			$pid = $1 if /^STAT pid (\d+)/;
		}
		kill TERM => $pid;
	P
}
p_memcached() { # of root it drops privileges
	local server drop=() i
	[ "$(id -u)" != 0 ] || drop=(-u nobody)
	chmod 711 "$dir" && chmod 1777 . && on memcached -s "$PWD/sock" -a 0666 -m 300 -t 4 "${drop[@]}" &
	server=$!
	for i in 1 2 3 4; do perl "$input/load.pl" "$PWD/sock" "${i}00000" >"out$i" & done
	for i in 1 2 3 4; do wait -n -p pid; [ "$pid" != "$server" ] || return; done
	cat out?
	perl "$input/end.pl" "$PWD/sock"
	wait "$server"
}
needs_tmux=tmux
p_tmux() { # what it leaves in the background is a child of a fork
	local i tmux=(tmux -S "$PWD/sock" -f /dev/null)
	on "${tmux[@]}" new-session -d -x 100 -y 40 "seq 1 20000; echo made; cat" || return
	"${tmux[@]}" set-option -g history-limit 30000 \; new-window "seq 1 30000; cat"
	for i in $(seq 200); do "${tmux[@]}" capture-pane -p | grep -qx 30000 && break; read -r -t 0.05 <> <(:) || :; done
	"${tmux[@]}" capture-pane -p -S - | sha256sum
	"${tmux[@]}" split-window -h cat \; list-panes -a -F '#{window_index} #{pane_index} #{pane_width}'
	"${tmux[@]}" kill-server
}
needs_vim=vim
prepare_vim() { seq 24000 | awk '{print $1, "the word" $1 * 7919 % 1009, "and", $1 % 17}' >in; }
p_vim() { # edits, searches, undoes; a script with lists and dictionaries, a filter
	cp "$input/in" . && cat >script.vim <<-'V'
		%s/word\(\d\+\)/\=submatch(1) * 2/g
		g/ 7$/m0
		v/[05]/d
		undo
		let d = {}
		for l in getline(1, '$') | let w = split(l)[2] | let d[w] = get(d, w, []) + [len(l)] | endfor
		1,2000!sort -k3,3n -k1,1n
		call append('$', map(sort(keys(d)), {i, k -> k . ' ' . len(d[k])}))
		w out
		qa!
	V
	on vim -u NONE -N -es -S script.vim in
	sha256sum out
}
needs_zstd=zstd
prepare_zstd() { mkdir tree && cd tree && for i in $(seq 300); do seq "$i" $((i * 40 + 1000)) >"f$i"; done; }
p_zstd() {
	on tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf a.tar -C "$input" tree
	on zstd -q -T2 -12 -B1MiB a.tar && on zstd -q -d -c a.tar.zst | on tar -xf - && diff -r tree "$input/tree" && sha256sum a.tar.zst
}
needs_threads=/usr/bin/python3
p_threads() { # sqlite in several threads of one process, that give up python's lock in it
	cat >threads.py <<-'P'
		import hashlib, sqlite3, threading, zlib
		out = {}
		def work(k):
		    db = sqlite3.connect(f"t{k}.db" if k % 2 else ":memory:")
		    db.execute("create table t(a integer, b text, c blob)")
		    for r in range(6):
		        db.executemany("insert into t values(?, ?, ?)", ((i, f"n{i * 7919 % 10007}", bytes([i & 255]) * (i % 300)) for i in range(k, 4000)))
		        db.execute(f"create index if not exists i{r} on t(b, a)")
		        db.execute("delete from t where a % 7 = ?", (r,))
		    rows = db.execute("select b, count(*), sum(length(c)) from t group by b order by 2 desc, 1 limit 500").fetchall()
		    out[k] = hashlib.sha256(zlib.compress(repr(rows).encode())).hexdigest()
		    db.close()
		for start in range(0, 12, 4):
		    threads = [threading.Thread(target=work, args=(k,)) for k in range(start, start + 4)]
		    for t in threads: t.start()
		    for t in threads: t.join()
		print(sorted(out.items()))
	P
	on /usr/bin/python3 threads.py
}

all='sqlite perl lua gcc git redis jq xz pdf node java sort awk bash make cmake clang convert memcached tmux vim zstd threads python'

# ---- faults: rows that must be bad, and why ----

needs_fault_output=sh bad_fault_output='heap differs'
p_fault_output() { on sh -c 'echo "${LD_PRELOAD:+other}"'; }
needs_fault_status=sh bad_fault_status='heap differs'
p_fault_status() { on sh -c '[ -z "$LD_PRELOAD" ]'; }
needs_fault_socket=awk bad_fault_socket='not on the heap' # there is no daemon
p_fault_socket() { on env SHMALLOC_SOCKET=/nonexistent/sock awk 'BEGIN {for (i = 0; i < 200000; i++) a[i] = i; print length(a)}'; }
needs_fault_static=/sbin/ldconfig bad_fault_static='not on the heap' # linked statically
p_fault_static() { on /sbin/ldconfig -p | wc -l; }
needs_fault_nothing=sh bad_fault_nothing='not on the heap' # a row that forgets `on`
p_fault_nothing() { sh -c 'echo word'; }
needs_fault_main=perl bad_fault_main='not on the heap' # a small process is there, and the large one that it starts is not
p_fault_main() { on sh -c "LD_PRELOAD= perl -e 'my @a = map {\"v\$_\"} 1 .. 200000; print scalar(@a)'; echo"; }
faults='fault_output fault_status fault_socket fault_static fault_nothing fault_main'
