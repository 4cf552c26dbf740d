# Reads `go test -v`. Of a package that passes it keeps go test's closing line
# and which tests were skipped and why; of one that fails, everything. With
# whole=1 it keeps everything as it comes. In the end it tells once more, a line
# for each message, what tests have said that failed: the beginning of a long
# output is what gets lost.

whole { print; fflush() }

/^(ok|FAIL|\?) *\t/ {
	if (!whole) {
		printf "%s%s\n", $1 == "FAIL" ? all : skipped, $0
		fflush()
	}
	all = skipped = ""
	split("", said)
	split("", last)
	next
}

{ all = all $0 "\n"; recent[NR % 20] = $0 }

/^=== (RUN|CONT|NAME) / { test = $3 }

/^ +[^ ]+\.go:[0-9]+: / {
	said[test] = said[test] $0 "\n"
	last[test] = $0
	sub(/^ +[^ ]+\.go:[0-9]+: /, "", last[test])
}

# How a script ended: the line that failed, and what was printed before it.
/^ +FAIL: .*\.txtar:[0-9]+: / {
	for (i = NR - 19; i <= NR; i++) if (i > 0) said[test] = said[test] recent[i % 20] "\n"
}

/^ *--- SKIP: / { skipped = skipped "skip\t" $3 ": " last[$3] "\n" }

/^(panic|fatal error): |^WARNING: DATA RACE/ { failed = failed test ": " $0 "\n" }

/^ *--- FAIL: / && said[$3] { failed = failed "failed\t" $3 "\n" said[$3] }

END {
	if (!whole) printf "%s", all # what belongs to no package
	printf "%s", failed
}
