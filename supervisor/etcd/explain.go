package etcd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

var (
	// errDenied means that etcd itself will not do what is asked, whoever of
	// its members is asked. The outcome is not unknown: nothing was done.
	errDenied = errors.New("etcd denies it")
	errClosed = errors.New("the etcd client is closed")
)

// explain names the endpoint and, where a person has to put something right,
// what.
func (e *endpoint) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrCompacted):
		return errCompacted
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return errLeaseGone
	}
	for _, d := range denials {
		if errors.Is(err, d.err) {
			return &explained{endpoint: e.url, cure: d.cure, err: errors.Join(err, errDenied), text: err.Error()}
		}
	}
	for _, t := range troubles {
		if strings.Contains(err.Error(), t.text) {
			return &explained{endpoint: e.url, cure: t.cure, err: err, text: t.text}
		}
	}
	if ended := e.expired(); !ended.IsZero() {
		return &explained{
			endpoint: e.url, err: err, text: err.Error(),
			cure: fmt.Sprintf("cert_file of [etcd] expired at %s: renew it", ended.Format(time.RFC3339)),
		}
	}
	return fmt.Errorf("%s: %w", e.url, err)
}

// expired returns when the certificate shown to this endpoint ended, if it has.
func (e *endpoint) expired() time.Time {
	if e.tls == nil || e.tls.GetClientCertificate == nil {
		return time.Time{}
	}
	cert, err := e.tls.GetClientCertificate(&tls.CertificateRequestInfo{})
	if err != nil || cert.Leaf == nil || time.Now().Before(cert.Leaf.NotAfter) {
		return time.Time{}
	}
	return cert.Leaf.NotAfter
}

// An explained error tells the endpoint, the cause and the cure.
type explained struct {
	endpoint, cure, text string
	err                  error
}

func (e *explained) Error() string { return e.endpoint + ": " + e.text + " (" + e.cure + ")" }
func (e *explained) Unwrap() error { return e.err }

// What etcd denies for good, by its own answer.
var denials = []struct {
	err  error
	cure string
}{
	{rpctypes.ErrPermissionDenied, "grant the user of [etcd] readwrite on the prefix: etcdctl role grant-permission ROLE readwrite --prefix=true PREFIX/"},
	{rpctypes.ErrAuthFailed, "the user name or the password is wrong: see username and password in [etcd]"},
	{rpctypes.ErrUserEmpty, "etcd wants to know who asks: set username and password in [etcd], or cert_file and key_file"},
	{rpctypes.ErrUserNotFound, "the user of [etcd] does not exist: etcdctl user add"},
	{rpctypes.ErrNoSpace, "etcd has reached its quota: compact and defragment it, then etcdctl alarm disarm"},
	{rpctypes.ErrCorrupt, "etcd has found its data corrupt: see etcdctl alarm list"},
}

// What keeps an endpoint from being reached, as gRPC words it.
var troubles = []struct{ text, cure string }{
	{"certificate signed by unknown authority", "ca_file in [etcd] is not the authority of this endpoint's certificate"},
	{"certificate has expired or is not yet valid", "renew the endpoint's certificate, or set the clock here right"},
	{"certificate is valid for", "the endpoint's certificate does not name it: use one of those names in [etcd] endpoints"},
	{"tls: certificate required", "etcd wants a client certificate: set cert_file and key_file in [etcd]"},
	{"tls: unknown certificate authority", "the endpoint does not trust the authority of cert_file of [etcd]"},
	{"tls: expired certificate", "cert_file of [etcd] has expired: renew it, or set the endpoint's clock right"},
	{"tls: bad certificate", "the endpoint does not accept cert_file of [etcd]"},
	{"first record does not look like a TLS handshake", "the endpoint speaks no TLS: use http://"},
	{"authentication handshake failed: EOF", "the endpoint speaks no TLS: use http://"},
	{"error reading server preface", "the endpoint may want TLS: use https:// and ca_file in [etcd]"},
	{"connection refused", "no etcd listens there"},
	{"no route to host", "the network does not lead there"},
	{"network is unreachable", "the network does not lead there"},
	{"no such host", "the name in [etcd] endpoints does not resolve"},
	{"etcdserver: no leader", "etcd has lost its majority, or is electing"},
}
