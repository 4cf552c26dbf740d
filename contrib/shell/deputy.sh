# shellcheck shell=sh
# deputy.sh: what scripts that deputy runs (use = "exec") have in common. For any
# POSIX shell on Linux; README.md beside it is the guide.
#
#	. "${0%/*}/deputy.sh"      # first: reads what deputy tells
#	is_primary() { … }         # looks: 0 it acts as primary, 1 it does not, else nobody knows
#	promote() { … }
#	demote() { … }
#	check() { … }              # also: follow, fence
#	deputy_main "$@"           # last: runs one of them
#
# What it guarantees: no exit code that a command happens to have becomes an
# outcome; only the functions that are named for one tell it, and everything else
# is unknown. Where there is an is_primary, an act is done only when that has seen
# it, and already only when that saw it before.
#
# What it does not guarantee: that is_primary looks where it has to.

# Outcomes of an act. Each ends it, with what was seen; a function that returns 0
# is done, and one in which a command fails is unknown: it may be primary.
succeed()   { deputy_end 0 "$@"; }
already()   { deputy_end 211 "$@"; } # nothing had to be done
unchanged() { deputy_end 212 "$@"; } # failed, and what was before still is, as seen by looking; ask again
refuse()    { deputy_end 213 "$@"; } # the same, and asking again is of no use
stale()     { deputy_end 214 "$@"; } # what it works on has seen a newer term; nothing changed
fail()      { deputy_end 1 "$@"; }   # unknown

# Answers of a check. A check that returns 0 says fit, any other not fit.
fit()        { deputy_end 0 "$@"; }
warning()    { deputy_end 215 "$@"; } # fit, and somebody ought to look
unfit()      { deputy_end 216 "$@"; }
unanswered() { deputy_end 217 "$@"; } # nobody knows

# Lines of the log, with their priority.
log_error()   { printf '<3>%s\n' "$*" >&2; }
log_warning() { printf '<4>%s\n' "$*" >&2; }
log_info()    { printf '<6>%s\n' "$*" >&2; }
log_debug()   { printf '<7>%s\n' "$*" >&2; }

# progress PERCENT TEXT: for `deputy status`, while the act runs.
progress() {
	deputy_percent=$1
	shift
	if [ -n "$deputy_by_hand" ]; then
		printf '%3s%% %s\n' "$deputy_percent" "$*" >&2
	elif [ "$DEPUTY_ACTION" != check ]; then
		printf '%s%% %s\n' "$deputy_percent" "$*" >&3
	fi
}

# forced: is this a demotion that has no time to be nice?
forced() { [ "$DEPUTY_MODE" = forced ]; }

# remaining: the seconds that the call has left, less what it takes to look
# afterwards: a quarter of its time, and a second at most.
remaining() {
	deputy_left=$(deputy_left_ms)
	printf '%d.%03d\n' "$((deputy_left / 1000))" "$((deputy_left % 1000))"
}

# bounded [-t SECONDS] COMMAND…: runs a program, not a function, for no longer
# than that and than remaining. When it is cut short its status is not 0, with
# coreutils 124 or 137; that cancels nothing which it has had others do. What it
# started itself is not cut short with it, and ends with the act: all stay in the
# script's process group, which deputy ends, and which ends when deputy dies.
bounded() {
	deputy_bound=$(deputy_left_ms)
	if [ "$1" = -t ]; then
		deputy_given=$(deputy_ms "$2")
		[ "$deputy_given" -ge "$deputy_bound" ] || deputy_bound=$deputy_given
		shift 2
	fi
	[ "$deputy_bound" -gt 0 ] || return 124 # to timeout(1), 0 is for ever
	set -- -k 1 "$(printf '%d.%03d' "$((deputy_bound / 1000))" "$((deputy_bound % 1000))")" "$@"
	case $(timeout --help 2>&1) in # that of coreutils makes a group of its own, that of busybox does not
	*--foreground*) set -- --foreground "$@" ;;
	esac
	timeout "$@"
}

# wait_for [-t SECONDS] COMMAND…: asks until the command or function says 0, for
# no longer than that and than remaining; then it says 1.
wait_for() {
	deputy_wait=$(deputy_left_ms)
	if [ "$1" = -t ]; then
		deputy_given=$(deputy_ms "$2")
		[ "$deputy_given" -ge "$deputy_wait" ] || deputy_wait=$deputy_given
		shift 2
	fi
	deputy_wait=$(($(deputy_uptime) + deputy_wait))
	until "$@"; do
		[ "$(deputy_uptime)" -lt "$deputy_wait" ] || return 1
		sleep 0.1
	done
}

# not COMMAND…: for wait_for.
not() { ! "$@"; }

# deputy_main ARG…: does what deputy, or somebody by hand, has asked for. The
# arguments are those of the definition, and each function gets them.
deputy_main() {
	set +e
	[ "$DEPUTY_ACTION" != help ] || deputy_help
	deputy_has "$DEPUTY_ACTION" || deputy_unfit_call "it has no function $DEPUTY_ACTION"
	deputy_environment
	case $DEPUTY_ACTION in
	check)
		(set -u; check "$@")
		deputy_status=$?
		;;
	promote)
		deputy_look "$@"
		[ "$deputy_seen" != 0 ] || deputy_exit 211 'acts as primary, as seen by looking'
		(set -eu; promote "$@")
		deputy_status=$?
		case $deputy_status in
		0 | 211) deputy_prove 0 "$@" ;;
		212 | 213 | 214) deputy_prove 1 "$@" ;;
		esac
		;;
	demote)
		# It is run whatever is seen: a promote that was cut short may have left
		# what is not primary yet. Forced, there is no time to look twice.
		deputy_seen=
		forced || deputy_look "$@"
		deputy_before=$deputy_seen
		(set -eu; demote "$@")
		deputy_status=$?
		case $deputy_status in
		0 | 211)
			deputy_prove 1 "$@"
			[ "$deputy_before" != 1 ] || deputy_status=211
			;;
		esac
		;;
	*)
		(set -eu; "$DEPUTY_ACTION" "$@")
		deputy_status=$?
		;;
	esac
	deputy_exit "$deputy_status"
}

# The rest is the kit's own.

# deputy_end STATUS TEXT…: ends the function that runs. The statuses above 210
# tell what was said from what a command happened to return.
deputy_end() {
	deputy_status=$1
	shift
	[ $# -eq 0 ] || printf '%s\n' "$*"
	exit "$deputy_status"
}

# deputy_exit STATUS TEXT…: ends the script as deputy, or Nagios, has it.
deputy_exit() {
	deputy_status=$1
	shift
	[ $# -eq 0 ] || printf '%s\n' "$*"
	if [ "$DEPUTY_ACTION" = check ]; then
		case $deputy_status in
		0) set -- 0 fit ;;
		215) set -- 1 'fit, with a warning' ;;
		217) set -- 3 'no answer' ;;
		*) set -- 2 'not fit' ;;
		esac
	else
		case $deputy_status in
		0) set -- 0 'done' ;;
		211) set -- 10 already ;;
		212) set -- 75 unchanged ;;
		213) set -- 20 refused ;;
		214) set -- 40 'stale term' ;;
		1) set -- 1 'unknown: it may be primary' ;;
		*)
			log_error "$DEPUTY_ACTION: a command ended with status $deputy_status"
			set -- 1 'unknown: it may be primary'
			;;
		esac
	fi
	[ -z "$deputy_by_hand" ] || printf '%s: %s (exit code %s)\n' "$DEPUTY_ACTION" "$2" "$1" >&2
	exit "$1"
}

# deputy_has NAME: is there a function of that name? A program is none.
deputy_has() { [ "$(command -v "$1")" = "$1" ]; }

# deputy_look ARG…: what is_primary sees, in deputy_seen; nothing without one.
deputy_look() {
	deputy_seen=
	deputy_has is_primary || return 0
	(set -u; is_primary "$@")
	deputy_seen=$?
}

# deputy_prove WANT ARG…: ends the act as unknown unless that is seen.
deputy_prove() {
	deputy_want=$1
	shift
	deputy_look "$@"
	case $deputy_seen in
	'' | "$deputy_want") return ;;
	0) log_error "$DEPUTY_ACTION: it acts as primary, as seen by looking" ;;
	1) log_error "$DEPUTY_ACTION: it does not act as primary, as seen by looking" ;;
	*) log_error "$DEPUTY_ACTION: nobody can see whether it acts as primary: is_primary returned $deputy_seen" ;;
	esac
	deputy_exit 1
}

# deputy_unfit_call TEXT: nothing was begun.
deputy_unfit_call() {
	log_error "$1"
	if [ "$DEPUTY_ACTION" = check ]; then
		deputy_exit 217
	fi
	deputy_exit 213
}

# deputy_environment judges what a call is told.
deputy_environment() {
	for deputy_name in SERVICE NODE; do
		eval "deputy_value=\${DEPUTY_$deputy_name:-}"
		[ -n "$deputy_value" ] || deputy_unfit_call "DEPUTY_$deputy_name is empty: deputy sets it"
	done
	for deputy_name in TERM TIMEOUT_MS; do
		eval "deputy_value=\${DEPUTY_$deputy_name:-}"
		case $deputy_value in
		'' | *[!0-9]*) deputy_unfit_call "DEPUTY_$deputy_name is \"$deputy_value\", not a number: deputy sets it" ;;
		esac
	done
	case $DEPUTY_ACTION/$DEPUTY_MODE in
	check/* | */planned | */forced) ;;
	*) deputy_unfit_call "DEPUTY_MODE is \"$DEPUTY_MODE\", neither planned nor forced: deputy sets it" ;;
	esac
	case $DEPUTY_ACTION/${DEPUTY_PRIMARY_NODE:-} in
	fence/ | fence/"$DEPUTY_NODE") deputy_unfit_call "fence: \"${DEPUTY_PRIMARY_NODE:-}\" is not another node" ;;
	esac
}

# deputy_uptime: milliseconds since boot.
deputy_uptime() {
	read -r deputy_up deputy_idle </proc/uptime
	: "$deputy_idle"
	printf '%d\n' "$((${deputy_up%.*} * 1000 + (1${deputy_up#*.} - 100) * 10))"
}

# deputy_ms SECONDS: in milliseconds; as 2 and 2.5 and 0.25 are written.
deputy_ms() {
	deputy_fraction=000
	case $1 in
	*[!0-9.]* | *.*.* | '' | .) log_error "$1 is no number of seconds" && exit 1 ;;
	*.*) deputy_fraction=$(printf '%.3s' "${1#*.}000") ;;
	esac
	deputy_whole=${1%%.*}
	printf '%d\n' "$((${deputy_whole:-0} * 1000 + 1$deputy_fraction - 1000))"
}

# deputy_left_ms: remaining, in milliseconds.
deputy_left_ms() {
	deputy_reserve=$((DEPUTY_TIMEOUT_MS / 4))
	[ "$deputy_reserve" -le 1000 ] || deputy_reserve=1000
	deputy_left=$((DEPUTY_TIMEOUT_MS - deputy_reserve - $(deputy_uptime) + deputy_began))
	[ "$deputy_left" -ge 0 ] || deputy_left=0
	printf '%d\n' "$deputy_left"
}

# deputy_help says what the script says at its top, and how it is used.
deputy_help() {
	sed -n '2,${/^#/!q;s/^# \{0,1\}//p;}' "$0"
	deputy_can=
	deputy_toml=
	for deputy_name in promote demote check follow fence; do
		deputy_has "$deputy_name" || continue
		deputy_can="$deputy_can|$deputy_name"
		deputy_toml="$deputy_toml, $deputy_name = [\"$0\"]"
	done
	cat <<-EOT

		In the definition of a service, each with the arguments that it takes:
		  [[plugin]]
		  use    = "exec"
		  config = { ${deputy_toml#, } }

		By hand, with DEPUTY_MODE=forced, DEPUTY_TERM=7, DEPUTY_TIMEOUT_MS=500 and their like before it:
		  $0 ${deputy_can#|} [ARG…]

		Exit codes: 0 done, 10 already, 20 refused, 75 unchanged, 40 stale term, else unknown;
		of a check 0 fit, 1 fit with a warning, 2 not fit, 3 no answer.
	EOT
	exit 0
}

# What deputy tells; by hand the first argument does, and this takes it away.
deputy_by_hand=
if [ -z "${DEPUTY_ACTION:-}" ]; then
	deputy_by_hand=yes
	DEPUTY_ACTION=${1:-help}
	[ $# -eq 0 ] || shift
	: "${DEPUTY_SERVICE:=by-hand}" "${DEPUTY_NODE:=$(uname -n)}" "${DEPUTY_TERM:=1}" "${DEPUTY_REASON:=switchover}"
	: "${DEPUTY_TIMEOUT_MS:=30000}" "${DEPUTY_ROLE:=primary}" "${DEPUTY_ATTEMPT:=1}" "${DEPUTY_STATE_DIR:=}"
	: "${DEPUTY_LEASE_UNTIL_MS:=0}" "${DEPUTY_PREVIOUS_NODE:=}" "${DEPUTY_PRIMARY_NODE:=}" "${DEPUTY_PRIMARY_ADDRESS:=}"
fi
case $DEPUTY_ACTION in
promote | demote | check | follow | fence | help) ;;
-h | --help) DEPUTY_ACTION=help ;;
*)
	printf '%s: there are promote, demote, check, follow and fence, not "%s"\n' "$0" "$DEPUTY_ACTION" >&2
	[ -n "$deputy_by_hand" ] && exit 64
	exit 20
	;;
esac
: "${DEPUTY_MODE:=planned}" # of a check it is not said
deputy_began=$(deputy_uptime)
