# Reads `go test -v`. Of a package that passes it keeps go test's closing line
# and which tests were skipped and why; of one that fails, everything.

/^(ok|FAIL|\?) *\t/ {
	printf "%s", $1 == "FAIL" ? all : skipped
	print
	fflush()
	all = skipped = ""
	next
}

{ all = all $0 "\n" }

/^ +[^ ]+\.go:[0-9]+: / { reason = $0 }

/^ *--- SKIP: / {
	sub(/^ +[^ ]+\.go:[0-9]+: /, "", reason)
	skipped = skipped "skip\t" $3 ": " reason "\n"
	reason = ""
}

END { printf "%s", all } # what belongs to no package, such as a build that failed
