package endpoint

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/deputy-ha/deputy/sdk"
)

// TLS are the settings of TLS as a client.
type TLS struct {
	CAFile     string `toml:"ca_file" doc:"the authorities that are believed, an absolute path to a file in PEM; without it those of the system"`
	ServerName string `toml:"server_name" doc:"whom the server's certificate has to be for; without it the host that is asked"`
	CertFile   string `toml:"cert_file" doc:"the certificate by which this client shows who it is, an absolute path to a file in PEM; needs key_file"`
	KeyFile    string `toml:"key_file" doc:"the key of cert_file, an absolute path to a file in PEM"`
	Verify     bool   `toml:"verify" doc:"the server's certificate is verified; without that anybody may answer in its place, and every answer tells so" default:"true"`
}

// Validate tells what is wrong with the settings, and with the files that they
// name, as they are now.
func (t *TLS) Validate() error {
	var wrong []error
	mistake := func(key, format string, args ...any) {
		wrong = append(wrong, &sdk.KeyError{Key: key, Err: fmt.Errorf(format, args...)})
	}
	for _, f := range []struct{ key, path string }{{"ca_file", t.CAFile}, {"cert_file", t.CertFile}, {"key_file", t.KeyFile}} {
		if f.path != "" && !filepath.IsAbs(f.path) {
			mistake(f.key, "%q is not an absolute path", f.path)
		}
	}
	switch {
	case t.CertFile != "" && t.KeyFile == "":
		mistake("cert_file", "needs key_file beside it")
	case t.CertFile == "" && t.KeyFile != "":
		mistake("key_file", "needs cert_file beside it")
	}
	if !t.Verify && (t.CAFile != "" || t.ServerName != "") {
		mistake("verify", "is false, so ca_file and server_name would count for nothing: remove it, or them")
	}
	if wrong != nil {
		return errors.Join(wrong...)
	}
	_, err := t.Config("")
	return err
}

// Config reads the files and returns what a connection to a host is made with.
// An error is an sdk.KeyError.
func (t *TLS) Config(host string) (*tls.Config, error) {
	// Unverified only where the settings say so, which Says tells.
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, InsecureSkipVerify: !t.Verify}
	if t.ServerName != "" {
		c.ServerName = t.ServerName
	}
	if t.CAFile != "" {
		text, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, &sdk.KeyError{Key: "ca_file", Err: err}
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, &sdk.KeyError{Key: "ca_file", Err: fmt.Errorf("%s has no certificate in PEM", t.CAFile)}
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, &sdk.KeyError{Key: "cert_file", Err: err}
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Says is what every answer tells of how it was come by, or empty.
func (t *TLS) Says() string {
	if t.Verify {
		return ""
	}
	return "; its certificate was not verified"
}
