# Reads `go test -v`. Of a package that passes it keeps go test's closing line
# and which tests were skipped and why; of one that fails, everything.

/^(ok|FAIL|\?) *\t/ {
	printf "%s", $1 == "FAIL" ? all : skipped
	print
	fflush()
	all = skipped = ""
	split("", said)
	next
}

{ all = all $0 "\n" }

/^=== (RUN|CONT|NAME) / { test = $3 }

/^ +[^ ]+\.go:[0-9]+: / {
	said[test] = $0
	sub(/^ +[^ ]+\.go:[0-9]+: /, "", said[test])
}

/^ *--- SKIP: / { skipped = skipped "skip\t" $3 ": " said[$3] "\n" }

END { printf "%s", all } # what belongs to no package
