package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Secret tells where a password is, not what it is: { credential = "mysql" }
// or { file = "/root/mysql.password" }. [Node.Reveal] reads it. The settings of
// plugins have them, too, where the plugin calls a setting a secret: SecretOf.
type Secret struct {
	Credential string // a file of that name among the credentials
	File       string // absolute
}

// eitherSecret is what a secret that is not written out has to look like.
const eitherSecret = `must be either { credential = "NAME" } or { file = "/path" }`

// SecretOf reads where a secret is from a plugin's setting that is a table.
func SecretOf(where map[string]any) (Secret, error) {
	credential, named := where["credential"].(string)
	file, filed := where["file"].(string)
	switch {
	case len(where) != 1 || !named && !filed:
		return Secret{}, errors.New(eitherSecret)
	case named && !namePattern.MatchString(credential):
		return Secret{}, fmt.Errorf("%q is not the name of a credential; %s", credential, nameRule)
	case filed:
		if err := absolute(file); err != nil {
			return Secret{}, err
		}
	}
	return Secret{Credential: credential, File: file}, nil
}

// IsZero reports whether no secret was named.
func (s Secret) IsZero() bool { return s == Secret{} }

// String names the secret; it does not tell it.
func (s Secret) String() string {
	switch {
	case s.Credential != "":
		return "credential " + s.Credential
	case s.File != "":
		return "file " + s.File
	default:
		return "no secret"
	}
}

// maxSecret bounds a secret, as systemd bounds its credentials.
const maxSecret = 1 << 20

// credentialDirs are where credentials are looked for: what systemd hands
// over, then the directory beside the node's file.
func credentialDirs(file string) []string {
	dirs := []string{filepath.Join(filepath.Dir(file), "credentials")}
	if given := os.Getenv("CREDENTIALS_DIRECTORY"); given != "" {
		dirs = append([]string{given}, dirs...)
	}
	return dirs
}

// Reveal reads a secret: the content of its file without a newline at the end.
// A credential is looked for in $CREDENTIALS_DIRECTORY, as NAME and as
// deputy_NAME (how systemd names the files of a directory that was given to
// LoadCredential), then in the directory credentials beside the node's file. A
// file that everybody may read is refused. Errors name the file only.
func (n Node) Reveal(s Secret) (string, error) {
	if s.File != "" {
		return reveal(s.File)
	}
	for _, dir := range n.credentials {
		for _, name := range []string{s.Credential, "deputy_" + s.Credential} {
			text, err := reveal(filepath.Join(dir, name))
			if !errors.Is(err, fs.ErrNotExist) {
				return text, err
			}
		}
	}
	return "", fmt.Errorf("reveal %s: %w in %s: write it into a file %s there, and chmod 600 that", s, fs.ErrNotExist, strings.Join(n.credentials, " or "), s.Credential)
}

func reveal(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("reveal secret: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("reveal secret: %w", err)
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return "", fmt.Errorf("reveal secret %s: is not a regular file", file)
	case mode.Perm()&0o007 != 0:
		return "", fmt.Errorf("reveal secret %s: everybody on this machine may read or change it (mode %04o): chmod 600 %s, then change the password", file, mode.Perm(), file)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("reveal secret: %w", err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case len(b) > maxSecret:
		return "", fmt.Errorf("reveal secret %s: is larger than %d KiB", file, maxSecret>>10)
	case text == "":
		return "", fmt.Errorf("reveal secret %s: is empty", file)
	}
	return text, nil
}

// readSecret reads where a secret is. A secret in the file itself is refused,
// and not repeated in the message.
func readSecret(t *table, key string) Secret {
	v := t.get(key)
	if v == nil {
		return Secret{}
	}
	keys, ok := v.is.(map[string]*value)
	if !ok {
		t.mistake(key, `must not stand in this file; put it into a file of its own (chmod 600) in the directory credentials beside this one and write { credential = "NAME" }`)
		return Secret{}
	}
	var s Secret
	sub := &table{at: v.at, path: t.path + key + ".", keys: keys, wrong: t.wrong}
	credential, file := sub.text("credential", &s.Credential), sub.text("file", &s.File)
	if credential && !namePattern.MatchString(s.Credential) {
		sub.mistake("credential", "is not the name of a credential; %s", nameRule)
	}
	if file {
		if err := absolute(s.File); err != nil {
			sub.mistake("file", "%v", err)
		}
	}
	sub.close()
	if sub.has("credential") == sub.has("file") {
		t.mistake(key, eitherSecret)
	}
	return s
}
