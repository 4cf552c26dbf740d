package boottime

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// ErrNoID tells that the machine has no id yet.
var ErrNoID = errors.New("there is none; run systemd-machine-id-setup")

// BootID names this boot of the machine: instants of another boot mean
// nothing. It is the kernel's own (random(4)).
func BootID() (string, error) {
	id, err := readID("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return id, nil
}

// MachineID names this machine for good, in 32 hexadecimal digits
// (machine-id(5)). The error is ErrNoID where it was never set up.
func MachineID() (string, error) {
	id, err := readID("/etc/machine-id")
	if err != nil {
		return "", fmt.Errorf("read machine id: %w", err)
	}
	return id, nil
}

func readID(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("%w (%w)", ErrNoID, err)
		}
		return "", err
	}
	id := strings.TrimSpace(string(b))
	hex := strings.ReplaceAll(id, "-", "")
	if len(hex) != 32 || strings.Trim(hex, "0123456789abcdef") != "" {
		// An image that boots for the first time says "uninitialized".
		return "", fmt.Errorf("%w (%s has %.40q)", ErrNoID, file, id)
	}
	return id, nil
}
