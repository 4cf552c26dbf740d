package e2e

import (
	"context"
	"path/filepath"
	"runtime"
)

// The versions that are packaged: the same sources, so that what differs
// between them is that one is newer.
const (
	oldVersion = "0.1.0"
	newVersion = "0.2.0"
)

func packageDir(dir, version string) string { return filepath.Join(dir, "packages-"+version) }

func hostsDir(dir string) string   { return filepath.Join(dir, "hosts") }
func answerFile(dir string) string { return filepath.Join(dir, "answer") }

// makePackages makes packages of both versions, and what else hosts run.
func makePackages(ctx context.Context, dir string) error {
	if err := makeAnswer(ctx, dir); err != nil {
		return err
	}
	made := filepath.Join(dir, "made")
	for _, v := range []string{oldVersion, newVersion} {
		if _, err := command(ctx, "env", "FORMATS=deb", "make", "-C", "../..", "package",
			"VERSION=v"+v, "ARCHS="+runtime.GOARCH, "DIST="+packageDir(dir, v), "BIN="+made, "MADE="+made); err != nil {
			return err
		}
	}
	return nil
}

// makeAnswer makes what answers on each host.
func makeAnswer(ctx context.Context, dir string) error {
	_, err := command(ctx, "env", "CGO_ENABLED=0", "go", "build", "-o", answerFile(dir), "./answer")
	return err
}
