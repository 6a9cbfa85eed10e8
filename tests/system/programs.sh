#!/bin/bash
# Real programs, each with a fixed input, on glibc and under shmalloc-run by turns: the same output and exit status, or the verdict is
# bad. Prints a Markdown table with the medians of wall time and peak resident memory of ROUNDS runs each. (Pages of the heap that a
# process has touched count in its resident memory like private ones; those of a daemon are its own.)
#
#	programs.sh [NAME...]       all of them, or those named; without a tool that is not installed
#
# A row is a function p_NAME, run in a directory of its own; what it prints is compared. `prepare_NAME`, if there is one, makes the
# input once. `on` before a command puts it on the heap, or not.
set -uo pipefail
BUILD=${BUILD:-build/plain}
case $BUILD in */plain) ;; *) echo 'skipped: a sanitizer has a malloc of its own'; exit 77 ;; esac
ROUNDS=${ROUNDS:-3}
top=$PWD
run=$top/$BUILD/shmalloc-run
dir=$(mktemp -d /tmp/shmalloc-programs.XXXXXX)
trap 'rm -rf "$dir"' EXIT
unset SHMALLOC_SOCKET SHMALLOC_HEAP SHMALLOC_HARDEN SHMALLOC_DEBUG LD_PRELOAD
export SHMALLOC_SOCKET=$dir/none LC_ALL=C.UTF-8 # a daemon of the machine is not part of this
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b \
	GIT_AUTHOR_DATE='2026-01-01 00:00:00 +0000' GIT_COMMITTER_DATE='2026-01-01 00:00:00 +0000'

# Runs a command as the row says, and notes its peak of resident memory; `plain` is glibc's.
on() {
	local how=()
	[ "$kind" = plain ] || how=("$run")
	/usr/bin/time -o "$dir/rss" -f '%M' "${how[@]}" "$@" 
	local status=$?
	tail -n 1 "$dir/rss" >>"$dir/peaks"
	return $status
}

# ---- the programs ----

# Modules of CPython's own regression tests that need no network, no terminal and no other processes, and are done in seconds.
python_tests='test_abc test_array test_ast test_augassign test_base64 test_binascii test_binop test_bisect test_bool test_bytes
	test_call test_class test_cmath test_codecs test_collections test_compare test_complex test_contextlib test_copy
	test_csv test_dataclasses test_deque test_descr test_dict test_dictviews test_difflib test_enum test_enumerate
	test_exceptions test_float test_format test_fractions test_frame test_functools test_generators test_genexps
	test_grammar test_hash test_heapq test_html test_htmlparser test_index test_int test_iter test_json test_keyword
	test_list test_listcomps test_math test_operator test_ordered_dict test_pprint test_range test_re test_richcmp test_set
	test_slice test_sort test_string test_struct test_textwrap test_tuple test_types test_unicode test_userdict
	test_xml_etree test_zlib'

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
needs_python=/usr/lib/python3.11/test/regrtest.py
p_python() { # times differ: the results by module alone
	# shellcheck disable=SC2086
	on /usr/bin/python3 -m test --timeout 600 $python_tests >log 2>&1
	local status=$?
	grep -E '^(All [0-9]+ tests OK|[0-9]+ tests? (failed|skipped))|^    test_' log
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

all='sqlite python perl lua gcc git redis jq xz pdf node java sort awk'

# ---- one row ----

now_ms() { echo $(($(date +%s%N) / 1000000)); }
median() { sort -n "$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

once() { # NAME plain|heap
	local work=$dir/work from
	rm -rf "$work" && mkdir "$work" && : >"$dir/peaks"
	from=$(now_ms)
	(cd "$work" && kind=$2 && input=$dir/input-$1 && "p_$1") >"$dir/$1.$2.out" 2>"$dir/$1.$2.err"
	echo "status $?" >>"$dir/$1.$2.out"
	echo $(($(now_ms) - from)) >>"$dir/$1.$2.ms"
	sort -n "$dir/peaks" | tail -n 1 >>"$dir/$1.$2.kib"
}

row() {
	local name=$1 verdict=good round kind
	mkdir -p "$dir/input-$name"
	if declare -F "prepare_$name" >/dev/null && ! (cd "$dir/input-$name" && "prepare_$name") >/dev/null; then
		echo "| $name | | | | | | **bad**: no input |"
		bad=$((bad + 1))
		return
	fi
	for round in $(seq "$ROUNDS"); do
		for kind in plain heap; do
			once "$name" $kind
			[ -e "$dir/$name.out" ] || mv "$dir/$name.plain.out" "$dir/$name.out"
			[ ! -e "$dir/$name.$kind.out" ] || cmp -s "$dir/$name.out" "$dir/$name.$kind.out" || verdict="**bad**: $kind differs"
			[ "$verdict" = good ] || break 2
		done
	done
	grep -qx 'status 0' "$dir/$name.out" || verdict="**bad**: glibc's own run fails"
	printf '| %s | %d | %d | %.2f | %.1f | %.1f | %s |\n' "$name" "$(median "$dir/$name.plain.ms")" "$(median "$dir/$name.heap.ms" 2>/dev/null || echo 0)" \
		"$(echo "$(median "$dir/$name.plain.ms") $(median "$dir/$name.heap.ms" 2>/dev/null)" | awk '{print $2 / $1}')" \
		"$(median "$dir/$name.plain.kib" | awk '{print $1 / 1024}')" "$(median "$dir/$name.heap.kib" 2>/dev/null | awk '{print $1 / 1024}')" "$verdict"
	[ "$verdict" = good ] && return
	bad=$((bad + 1))
	diff "$dir/$name.out" "$dir/$name.${kind:-heap}.out" | head -n 20
	tail -n 20 "$dir/$name.${kind:-heap}.err"
}

bad=0 rows=0
command -v /usr/bin/time >/dev/null || { echo 'skipped: no /usr/bin/time (make check-programs-deps)'; exit 77; }
echo '| program | glibc, ms | heap, ms | ratio | glibc, MiB | heap, MiB | verdict |'
echo '| --- | ---: | ---: | ---: | ---: | ---: | --- |'
for name in ${*:-$all}; do
	need=needs_$name
	if [ -e "${!need}" ] || command -v "${!need}" >/dev/null; then
		row "$name"
		rows=$((rows + 1))
	else
		echo "| $name | | | | | | not installed |"
	fi
done
[ "$bad" = 0 ] && [ "$rows" != 0 ]
