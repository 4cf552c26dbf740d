// Package python is the kit of plugins in Python: a file that a plugin imports,
// and that serves it as package sdk serves one in Go. README.md beside it is the
// guide.
//
// What it guarantees: Kit is that file, as it is installed; the wire in it is that
// of sdk/proto, which .ci/generated compares. What it does not: a Python, or what
// of it is needed.
package python

import _ "embed"

// Kit is deputy_plugin.py.
//
//go:embed deputy_plugin.py
var Kit string
