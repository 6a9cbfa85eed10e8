# Figures (NAME ALLOCATOR VALUE UNIT REPETITION, separated by tabs) to Markdown: what was to be reached, then all medians. A dash is a
# figure that was not taken. Ratios are this heap's figure by the best of the others; of rates, more is better. With -v medians=1 prints
# NAME ALLOCATOR MEDIAN UNIT instead, for plots.
BEGIN {
	FS = "\t"
	own = "shmalloc"
	n_private = split("glibc jemalloc tcmalloc mimalloc", private, " ")
	n_shared = split("boost-rbtree boost-seqfit mm apr iceoryx pmemobj", shared, " ")
	n_small = split("cc1-sqlite jq-json perl-text python-json redis-mixed", small, " ")
}

{
	key = $1 SUBSEP $2
	value[key, ++count[key]] = $3
	if (!($1 in unit))
		name[++names] = $1
	unit[$1] = $4
}

END {
	for (key in count)
		middle[key] = median(key)
	means()
	if (medians) {
		for (key in middle) {
			split(key, part, SUBSEP)
			print part[1] FS part[2] FS middle[key] FS unit[part[1]]
		}
		exit
	}
	goals()
	pivot("One process, in-process allocators", "^(pair|batch|set100k|burst|large|touch|ring|instructions)[^@/]*$", n_private,
		private)
	pivot("Allocators for shared memory", "/shared$", n_shared, shared)
	pivot("Traces: ns per event", "^trace_", n_private, private)
	pivot("Traces: peak memory / peak live bytes", "^peak_", n_private, private)
	pivot("Live blocks", "^live_", n_private, private)
	pivot("This heap alone", "(@|^(messages|request|grant|pageheap|start))", 0, none)
}

function median(key,    n, i, j, v, sorted) {
	n = count[key]
	for (i = 1; i <= n; i++) {
		v = value[key, i] + 0
		for (j = i - 1; j >= 1 && sorted[j] > v; j--)
			sorted[j + 1] = sorted[j]
		sorted[j + 1] = v
	}
	return sorted[int((n + 1) / 2)]
}

function has(what, who) { return (what SUBSEP who) in middle }
function get(what, who) { return middle[what SUBSEP who] }
function is_rate(what) { return unit[what] ~ /\/s$/ }

function number(v) {
	if (v == "-")
		return v
	return sprintf(v >= 1000 ? "%.0f" : v >= 100 ? "%.0f" : v >= 10 ? "%.1f" : v == int(v) ? "%d" : "%.2f", v)
}

function cell(what, who) { return has(what, who) ? number(get(what, who)) : "-" }

# The best of the named allocators, or "" if there is none; `best_who` says whose it is.
function best_of(what, n, who,    i, v, found) {
	found = ""
	for (i = 1; i <= n; i++) {
		if (!has(what, who[i]))
			continue
		v = get(what, who[i])
		if (found == "" || (is_rate(what) ? v > found : v < found)) {
			found = v
			best_who = who[i]
		}
	}
	return found
}

# ---- geometric means over the traces that all have ----

function means(    i, w, who, kind, t, names_were) {
	names_were = names
	for (i = 1; i <= names_were; i++) {
		kind = name[i]
		if (kind !~ /^(trace|peak)_/)
			continue
		sub(/_.*/, "", kind)
		for (w = 0; w <= n_private; w++) {
			who = w ? private[w] : own
			if (!has(name[i], who) || get(name[i], who) <= 0)
				continue
			logs[kind, who] += log(get(name[i], who))
			terms[kind, who]++
		}
	}
	split("trace peak", t, " ")
	for (i = 1; i <= 2; i++)
		for (w = 0; w <= n_private; w++) {
			who = w ? private[w] : own
			if (!terms[t[i], who] || terms[t[i], who] != terms[t[i], own])
				continue
			kind = t[i] "_(geometric mean)"
			if (!(kind in unit))
				name[++names] = kind
			unit[kind] = i == 1 ? "ns" : "ratio"
			middle[kind SUBSEP who] = exp(logs[t[i], who] / terms[t[i], who])
		}
}

# ---- what was to be reached ----

function verdict(v, sign, limit) {
	if (v == "" || v == "-")
		return "-"
	return (sign == "<=" ? v <= limit : sign == "<" ? v < limit : v >= limit) ? "reached" : "**missed**"
}

function line(what, is, other, ratio, sign, limit, judged) {
	printf "| %s | %s | %s | %s | %s %s | %s |\n", what, is, other, (ratio == "" ? "-" : number(ratio)), sign, limit, judged
}

# This heap's figure by another: of the best of some allocators, or of one that is named.
function goal(label, what, other_what, n, who, sign, limit,    other, ratio) {
	other = best_of(other_what, n, who)
	ratio = has(what, own) && other != "" && other > 0 ? get(what, own) / other : ""
	line(label, cell(what, own) " " unit[what], other == "" ? "-" : number(other) " (" best_who ")", ratio, sign, limit,
		verdict(ratio, sign, limit))
}

function absolute(label, what, sign, limit) {
	line(label, cell(what, own) " " unit[what], "-", "", sign, limit, has(what, own) ? verdict(get(what, own), sign, limit) : "-")
}

# From the best to the worst of several figures of this heap.
function flat(label, n, what, limit,    i, v, low, high, ratio) {
	for (i = 1; i <= n; i++) {
		if (!has(what[i], own))
			continue
		v = get(what[i], own)
		low = low == "" || v < low ? v : low
		high = high == "" || v > high ? v : high
	}
	ratio = low > 0 ? high / low : ""
	line(label, low == "" ? "-" : number(low) " to " number(high) " " unit[what[1]], others_growth(n, what), ratio, "<=", limit,
		verdict(ratio, "<=", limit))
}

# Of the in-process allocator that grows least.
function others_growth(n, what,    i, w, v, low, high, best, text) {
	text = "-"
	for (w = 1; w <= n_private; w++) {
		low = high = ""
		for (i = 1; i <= n && has(what[i], private[w]); i++) {
			v = get(what[i], private[w])
			low = low == "" || v < low ? v : low
			high = high == "" || v > high ? v : high
		}
		if (i <= n || !(low > 0) || (best != "" && high / low >= best))
			continue
		best = high / low
		text = number(best) " times (" private[w] ")"
	}
	return text
}

function plain(label, what) {
	line(label, cell(what, own) " " unit[what], "-", "", "-", "", has(what, own) ? "measured" : "-")
}

function worst_small(    i, v, worst) {
	worst = ""
	for (i = 1; i <= n_small; i++)
		if (has("messages_" small[i], own)) {
			v = get("messages_" small[i], own)
			worst = worst == "" || v > worst ? v : worst
		}
	line("messages per 10,000 events, worst of the small-object traces", worst == "" ? "-" : number(worst), "-", "", "<", 1,
		verdict(worst, "<", 1))
}

function goals(    i, me, jemalloc, boost, what) {
	me[1] = own
	jemalloc[1] = "jemalloc"
	boost[1] = "boost-rbtree" # its default; the other one is quick in a ring and hopeless in a working set
	print "| figure | this heap | to compare with | ratio | reach | |"
	print "| --- | ---: | ---: | ---: | ---: | --- |"
	split("16 64 256 1024", what, " ")
	for (i = 1; i <= 4; i++)
		goal("pair, " what[i] " B", "pair" what[i], "pair" what[i], n_private, private, "<=", "1.0")
	absolute("instructions of a pair of 64 B", "instructions64", "<=", 55)
	split("8192 32768 262144", what, " ")
	for (i = 1; i <= 3; i++)
		goal("pair, " what[i] / 1024 " KiB, by its own 64 B pair", "pair" what[i], "pair64", 1, me, "<=", 1.5)
	goal("working set of 100,000", "set100k", "set100k", n_private, private, "<=", 1.1)
	goal("the same, 2 processes, by 2 threads of the best", "set100k_processes", "set100k_threads", n_private, private, ">=", "1.0")
	goal("the same, by Boost.Interprocess", "set100k_processes/shared", "set100k_processes/shared", 1, boost, ">=", 40)
	goal("from process to process, 64 B, by 2 threads of the best", "ring64_processes", "ring64_threads", n_private, private, ">=", 1.2)
	goal("the same, by Boost.Interprocess", "ring64_processes/shared", "ring64_processes/shared", 1, boost, ">=", 20)
	split("inorder reverse random", what, " ")
	for (i = 1; i <= 3; i++)
		goal("burst of 1,000,000, freed " (i == 1 ? "in order" : i == 2 ? "in reverse" : "at random"), "burst_" what[i], "burst_" what[i],
			n_private, private, "<=", 1.15)
	goal("2 MiB, all touched", "large2M_all", "large2M_all", n_private, private, "<=", 1.1)
	goal("traces, ns per event, geometric mean", "trace_(geometric mean)", "trace_(geometric mean)", n_private, private, "<=", 1.05)
	goal("traces, peak / live, geometric mean", "peak_(geometric mean)", "peak_(geometric mean)", 1, jemalloc, "<=", "1.0")
	absolute("messages in a warm working set", "messages_warm", "<=", 0)
	worst_small()
	starts()
	goal("first touch, blocks of 4 KiB, by anonymous memory", "touch_4K", "touch_anonymous", 1, me, "<=", 1.1)
	goal("first touch, blocks of 2 MiB, by anonymous memory", "touch_2M", "touch_anonymous", 1, me, "<=", 1.1)
	growth()
	print ""
}

function starts(    glibc, d) {
	d = has("start", own) && has("start", "glibc") ? get("start", own) - get("start", "glibc") : ""
	line("start to first block, beyond glibc's", cell("start", own) " ms", cell("start", "glibc") " (glibc)", d == "" ? "" : d " ms",
		"<", "2 ms", verdict(d, "<", 2))
}

# Names of figures for each power of ten.
function powers(what, prefix, from, to, suffix,    n) {
	n = 0
	for (; from <= to; from *= 10)
		what[++n] = prefix sprintf("%d", from) suffix
	return n
}

function growth(    what, n) {
	n = powers(what, "live_beside_", 10000, 10000000, "")
	flat("10,000 to 10,000,000 live blocks, others come and go", n, what, 1.2)
	n = powers(what, "live_replace_", 10000, 10000000, "")
	flat("10,000 to 10,000,000 live blocks, these replaced at random", n, what, 1.2)
	split("set100k@1 set100k@8 set100k@64", what, " ")
	flat("1 to 64 clients, working set", 3, what, 1.2)
	split("request_cpu@1 request_cpu@8 request_cpu@64", what, " ")
	flat("1 to 64 clients, CPU of a request", 3, what, 1.2)
	split("set100k@1GiB set100k@32GiB set100k@1TiB", what, " ")
	flat("1 GiB to 1 TiB of address space, working set", 3, what, 1.2)
	split("pair64@1GiB pair64@32GiB pair64@1TiB", what, " ")
	flat("1 GiB to 1 TiB of address space, pair of 64 B", 3, what, 1.2)
	plain("requests to the daemon, one client", "requests")
	plain("the daemon's CPU per MiB granted, in blocks of 64 B", "grant_cpu_64")
	plain("the daemon's CPU per MiB granted, in blocks of 2 MiB", "grant_cpu_2M")
	n = powers(what, "pageheap_spans_", 1000, 1000000, "_instructions")
	flat("page heap, 1,000 to 1,000,000 spans, instructions (O(log n))", n, what, "2.0")
	n = powers(what, "pageheap_runs_", 100, 10000, "_instructions")
	flat("page heap, 100 to 10,000 long free runs, instructions (O(log n))", n, what, "2.0")
}

# ---- all figures ----

function pivot(title, pattern, n, who,    i, w, best, label, shown) {
	for (i = 1; i <= names; i++) {
		if (name[i] !~ pattern)
			continue
		if (!shown++) {
			printf "## %s\n\n| | unit |", title
			for (w = 1; w <= n; w++)
				printf " %s |", who[w]
			printf " %s |%s\n| --- | --- |", own, n ? " ratio |" : ""
			for (w = 1; w <= n + 1 + (n > 0); w++)
				printf " ---: |"
			print ""
		}
		label = name[i]
		sub(/\/shared$/, "", label)
		printf "| %s | %s |", label, unit[name[i]]
		for (w = 1; w <= n; w++)
			printf " %s |", cell(name[i], who[w])
		printf " %s |", cell(name[i], own)
		if (n) {
			best = best_of(name[i], n, who)
			printf " %s |", (best > 0 && has(name[i], own)) ? number(get(name[i], own) / best) : "-"
		}
		print ""
	}
	if (shown)
		print ""
}
