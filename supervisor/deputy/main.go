// Deputy keeps one node at a time primary for each of its services, and is the
// command line to see and steer that.
//
// What it guarantees: every command ends with a status that tells scripts what
// happened (see exit.go), and names what is wrong together with what puts it
// right; `deputy run` ends only when its services are demoted here, or handed
// to the next process on purpose.
//
// What it does not guarantee: `deputy run` by itself demotes nothing once it is
// frozen or dead. That is for systemd and the kernel, and outside of them it
// says so.
//
// This is the only package that reads flags and the environment, catches
// signals, and sees the other packages together.
package main

import (
	"context"
	"os"
)

func main() {
	a := &app{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		env: os.Getenv, screen: screenOf(os.Stdout, os.Getenv),
	}
	os.Exit(a.main(context.Background(), os.Args[1:]))
}
