// Package shell is the kit of scripts that deputy runs: a file that a script
// reads first, and that has it keep the contract. README.md beside it is the
// guide.
//
// What it guarantees: Kit is that file, as it is installed. What it does not: a
// shell, which the script's first line names.
package shell

import _ "embed"

// Kit is deputy.sh.
//
//go:embed deputy.sh
var Kit string
