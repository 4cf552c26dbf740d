package plugin

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// become returns what it takes to run a program as another user, and that
// user's home. For the supervisor's own user that is nothing.
func become(name string) (*syscall.Credential, string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, "", fmt.Errorf("look up user: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, "", fmt.Errorf("look up user %s: %w", name, err)
	}
	switch os.Geteuid() {
	case int(uid):
		return nil, u.HomeDir, nil
	case 0:
	default:
		return nil, "", fmt.Errorf("run as %s: the supervisor would have to run as root", name)
	}
	cred := &syscall.Credential{Uid: uint32(uid)}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, "", fmt.Errorf("look up groups of %s: %w", name, err)
	}
	for _, id := range append([]string{u.Gid}, ids...) {
		gid, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, "", fmt.Errorf("look up groups of %s: %w", name, err)
		}
		cred.Groups = append(cred.Groups, uint32(gid))
	}
	cred.Gid = cred.Groups[0]
	return cred, u.HomeDir, nil
}
