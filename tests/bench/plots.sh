#!/bin/bash
# Draws what run.sh measured: $BUILD/bench/plots/*.svg, from the medians; with FORMAT=png, PNG.
set -eu
cd "$(dirname "$0")/../.."
bin=${BUILD:-build/plain}/bench
command -v gnuplot >/dev/null || { echo 'plots: gnuplot is not installed (make bench-deps)'; exit 1; }
format=${FORMAT:-svg}
terminal=$format
[ "$format" = png ] && terminal=pngcairo
mkdir -p "$bin/plots"
medians=$(mktemp)
data=$(mktemp)
trap 'rm -f "$medians" "$data"' EXIT
awk -v medians=1 -f tests/bench/table.awk "$bin/results.tsv" >"$medians"
private=(glibc jemalloc tcmalloc mimalloc shmalloc)
shared=(boost-rbtree boost-seqfit mm apr iceoryx pmemobj shmalloc)

# A row for each figure, with a column for each allocator that has any of them ("?": not this one). What is cut off the name is not shown.
rows() { # what to cut off, allocators, figures...
	awk -F'\t' -v cut="$1" -v allocators="$2" -v figures="${*:3}" '
		{value[$1, $2] = $3}
		END {
			n = split(allocators, who, " ")
			m = split(figures, name, " ")
			for (i = 1; i <= n; i++)
				for (j = 1; j <= m; j++)
					if ((name[j], who[i]) in value)
						there[who[i]] = seen[name[j]] = 1
			for (j = 0; j <= m; j++) {
				if (j && !(name[j] in seen))
					continue
				line = j ? name[j] : "figure"
				gsub(cut, "", line)
				for (i = 1; i <= n; i++)
					if (who[i] in there)
						line = line " " (j ? ((name[j], who[i]) in value ? value[name[j], who[i]] : "?") : who[i])
				print line
			}
		}' "$medians"
}

drawable() { # file
	[ "$(wc -l <"$data")" -gt 1 ] || { echo "plots: no figures for $1"; rm -f "$bin/plots/$1.$format"; return 1; }
}

named() { cut -f 1 "$medians" | grep -E "$1" | sort -u; } # those that there are, by pattern

bars() { # file, title, axis, what to cut off, allocators, figures...
	local file=$1 title=$2 axis=$3
	rows "$4" "${@:5}" >"$data"
	drawable "$file" || return 0
	gnuplot <<-END
		set terminal $terminal size 1100,500 background "white"
		set output "$bin/plots/$file.$format"
		set title "$title"
		set ylabel "$axis"
		set logscale y
		set style data histograms
		set style histogram clustered gap 1
		set style fill solid 0.8 border -1
		set datafile missing "?"
		set grid ytics
		set xtics rotate by -30
		set key outside noenhanced autotitle columnhead
		set xtics noenhanced
		columns = $(head -n 1 "$data" | wc -w)
		plot for [i = 2:columns] "$data" using i:xtic(1)
	END
}

lines() { # file, title, axis of x, axis of y, what to cut off, allocators, figures...
	local file=$1 title=$2 x=$3 y=$4
	rows "$5" "${@:6}" | sort -n >"$data"
	drawable "$file" || return 0
	gnuplot <<-END
		set terminal $terminal size 900,500 background "white"
		set output "$bin/plots/$file.$format"
		set title "$title"
		set xlabel "$x"
		set ylabel "$y"
		set logscale xy
		set datafile missing "?"
		set grid
		set key outside noenhanced
		columns = $(grep '^figure' "$data" | wc -w)
		plot for [i = 2:columns] "$data" using 1:i with linespoints title word("$(grep '^figure' "$data")", i)
	END
}

bars pairs 'A block is made, written to and freed' ns pair "${private[*]}" pair{16,64,256,1024,8192,32768,262144}
bars sets 'Many blocks: working set, bursts freed in three orders' ns '^$' "${private[*]}" batch64 set100k burst_{inorder,reverse,random}
bars two 'Two at once: threads' Mops/s _threads "${private[*]}" {set100k,ring64,ring1024}_threads
bars instructions 'Instructions of a pair' instructions instructions "${private[*]}" instructions{16,64,1024,8192,262144}
bars shared 'Shared memory: one process' ns /shared "${shared[*]}" {pair64,pair1024,batch64,set100k}/shared
bars shared-two 'Shared memory: two processes' Mops/s _processes/shared "${shared[*]}" {set100k,ring64,ring1024}_processes/shared
# shellcheck disable=SC2046
bars traces 'Traces' 'ns per event' trace_ "${private[*]}" $(named '^trace_[a-z]')
# shellcheck disable=SC2046
bars peaks 'Traces' 'peak memory / peak live bytes' peak_ "${private[*]}" $(named '^peak_[a-z]')
live=(1000{0,00,000,0000})
who='tcmalloc mimalloc shmalloc'
lines live 'N live blocks, one at random replaced' 'live blocks' ns live_replace_ "$who" "${live[@]/#/live_replace_}"
lines beside 'N live blocks, others come and go' 'live blocks' ns live_beside_ "$who" "${live[@]/#/live_beside_}"
lines pageheap 'Page heap: a span is closed, another opened' spans instructions 'pageheap_spans_|_instructions' shmalloc \
	pageheap_spans_1000{,0,00,000}_instructions
echo "plots: $bin/plots"
