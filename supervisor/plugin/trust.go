package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// trusted returns nil if path is a program that can be run and that nobody but
// root and uid can change: not the file, not a folder or link on the way to
// it. Other errors than ErrUnsafe say why it cannot be run.
func trusted(path string, uid int) error {
	if err := trustedWay(path, uid); err != nil {
		return err
	}
	// Reading its beginning has a dead file system hang here, where only this
	// call waits for it, rather than in exec, where every fork of the process
	// would.
	f, err := os.Open(path)
	switch {
	case errors.Is(err, os.ErrPermission): // a program need not be readable
		return nil
	case err != nil:
		return err
	}
	defer f.Close()
	var head [256]byte
	n, err := f.Read(head[:])
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", path, err)
	}
	line, _, _ := strings.Cut(string(head[:n]), "\n")
	if words, ok := strings.CutPrefix(line, "#!"); ok {
		if in := strings.Fields(words); len(in) > 0 {
			if _, err := os.Stat(in[0]); err != nil {
				return fmt.Errorf("%s: its first line names an interpreter that is not there: %w", path, err)
			}
		}
	}
	return nil
}

// trustedWay walks to path and looks at every folder, every link and the file.
func trustedWay(path string, uid int) error {
	at, rest := "/", strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		next := filepath.Join(at, rest[0]) // at holds no link, so ".." is its parent
		rest = rest[1:]
		info, err := os.Lstat(next)
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is not there: install it, or correct the path %s: %w", next, path, os.ErrNotExist)
		}
		if err != nil {
			return err
		}
		if err := trustedOwner(next, info, uid); err != nil {
			return err
		}
		mode := info.Mode()
		// In a folder like /tmp everybody can make files, but nobody can
		// remove or rename those of others.
		if others := mode&0o022 != 0 && mode&(os.ModeSymlink|os.ModeSticky) == 0; others {
			return fmt.Errorf("%s: %w: chmod go-w %s", next, ErrUnsafe, next)
		}
		switch {
		case mode&os.ModeSymlink != 0:
			if links++; links > 40 {
				return fmt.Errorf("%s: %w", path, syscall.ELOOP)
			}
			to, err := os.Readlink(next)
			if err != nil {
				return err
			}
			if filepath.IsAbs(to) {
				at = "/"
			}
			rest = append(strings.Split(to, "/"), rest...)
		case len(rest) > 0:
			at = next
		case mode.IsDir():
			return fmt.Errorf("%s is a folder, not a program", next)
		case !mode.IsRegular():
			return fmt.Errorf("%s is not a regular file", next)
		case mode&0o111 == 0:
			return fmt.Errorf("%s is not executable: chmod +x %s", next, next)
		}
	}
	return nil
}

func trustedOwner(path string, info os.FileInfo, uid int) error {
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if owner == 0 || owner == uid {
		return nil
	}
	who, to := strconv.Itoa(owner), strconv.Itoa(uid)
	if u, err := user.LookupId(who); err == nil {
		who = u.Username
	}
	if u, err := user.LookupId(to); err == nil {
		to = u.Username
	}
	return fmt.Errorf("%s: %w: it is %s's: chown -h %s %s", path, ErrUnsafe, who, to, path)
}

// onDisk does something with files. A dead file system may hold it for ever: it
// is then left behind when ctx ends, and the error tells the cause.
func onDisk(ctx context.Context, what string, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
}
