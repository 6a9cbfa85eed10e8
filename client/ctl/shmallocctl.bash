# bash completion for shmallocctl and shmallocd.
#
# What there is to complete is asked of the programs themselves: commands and options, with the values that --help has for them
# ("--by kind|class|owner"), come from --help; heaps and clients from the daemon, which is given a second to answer. So there is no list
# here that could be out of date.

# The options of a help on standard input, one a line: the long form and, if it takes a value, a '=' and what --help calls it. What
# follows an option after one space is its value, after more the description.
_shmalloc_options() {
	sed -nE -e 's/^ +(-., )?(--[a-z-]+) ([^ ]+)( .*)?$/\2=\3/p' -e t -e 's/^ +(-., )?(--[a-z-]+)( .*)?$/\2/p'
}

# The long form of option $2 of a help on standard input ("-f": "--format").
_shmalloc_long() {
	sed -nE "s/^ +$1, (--[a-z-]+).*/\1/p"
}

# Column $1 of the rows of the array in the JSON on standard input. Names that a shell would make something of are left out.
_shmalloc_rows() {
	sed -nE "s/^    \{.*\"$1\":\"?([A-Za-z0-9_-]+)\"?[,}].*/\1/p"
}

# What completes the value of option $1, which --help calls $2; the rest is how the program is asked.
_shmalloc_value() {
	local option=$1 what=$2
	shift 2
	case $what in
	PATH | FILE)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		;;
	[[:lower:]]*) mapfile -t COMPREPLY < <(compgen -W "${what//|/ }" -- "$cur") ;;
	LEVEL) mapfile -t COMPREPLY < <(compgen -W 'error warn info debug' -- "$cur") ;;
	*)
		[ "$option" = --heap ] || return 0
		mapfile -t COMPREPLY < <(compgen -W "$("$@" --timeout 1 --format json heaps 2>/dev/null | _shmalloc_rows name)" -- "$cur")
		;;
	esac
}

_shmallocctl() {
	local program=${COMP_WORDS[0]} cur prev word command='' help at i
	local -a asked=() options=()
	COMPREPLY=()

	# bash takes '--by=kind' apart at the '='
	cur=${COMP_WORDS[COMP_CWORD]}
	prev=${COMP_WORDS[COMP_CWORD - 1]}
	if [ "$cur" = = ]; then
		cur=
	elif [ "$prev" = = ]; then
		prev=${COMP_WORDS[COMP_CWORD - 2]}
	fi

	# the command, and how the daemon is reached
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
		-s | --socket | -H | --heap)
			((at = i + 1))
			[ "${COMP_WORDS[at]}" = = ] && ((at++))
			((at < COMP_CWORD)) && asked+=("$word" "${COMP_WORDS[at]}")
			((i = at))
			;;
		-*) ;;
		*) # not the value of the option before it
			if [ -z "$command" ] && "$program" "$word" --help >/dev/null 2>&1; then command=$word; fi
			;;
		esac
	done
	# shellcheck disable=SC2086
	help=$("$program" $command --help 2>/dev/null) || return 0
	mapfile -t options < <(_shmalloc_options <<<"$help")

	case $prev in -?) prev=$(_shmalloc_long "$prev" <<<"$help") ;; esac
	for word in "${options[@]}"; do
		if [ "$prev" = "${word%%=*}" ] && [ "$word" != "$prev" ]; then
			_shmalloc_value "$prev" "${word#*=}" "$program" "${asked[@]}"
			return 0
		fi
	done
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "${options[*]%%=*}" -- "$cur")
	elif [ -z "$command" ]; then
		mapfile -t COMPREPLY < <(compgen -W "$(awk '/^Commands:/ {on = 1; next} /^$/ {on = 0} on {print $1}' <<<"$help")" -- "$cur")
	elif grep -q '^Usage: .*CLIENT' <<<"$help"; then
		mapfile -t COMPREPLY < <(compgen -W "$("$program" "${asked[@]}" --timeout 1 --format json clients 2>/dev/null |
			_shmalloc_rows client)" -- "$cur")
	elif grep -qE '^Usage: .*(META|FILE)' <<<"$help"; then
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
	fi
}

_shmallocd() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} word
	local -a options=()
	COMPREPLY=()

	if [ "$cur" = = ]; then
		cur=
	elif [ "$prev" = = ]; then
		prev=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	mapfile -t options < <("${COMP_WORDS[0]}" --help 2>/dev/null | _shmalloc_options)
	for word in "${options[@]}"; do
		if [ "$prev" = "${word%%=*}" ] && [ "$word" != "$prev" ]; then
			_shmalloc_value "$prev" "${word#*=}" false
			return 0
		fi
	done
	mapfile -t COMPREPLY < <(compgen -W "${options[*]%%=*}" -- "$cur")
}

complete -F _shmallocctl shmallocctl
complete -F _shmallocd shmallocd
