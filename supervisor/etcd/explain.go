package etcd

import (
	"crypto/tls"
	"crypto/x509"
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
	// errForeign means that an endpoint belongs to another etcd.
	errForeign = errors.New("it belongs to another etcd cluster")
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
			return &explained{endpoint: e.url, cure: e.fill(d.cure), err: errors.Join(err, errDenied), text: err.Error()}
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

// fill puts this endpoint's user and keys into a cure.
func (e *endpoint) fill(cure string) string {
	return strings.NewReplacer("USER", e.user(), "PREFIX/", e.root).Replace(cure)
}

// user is who etcd takes this process for, as far as it is known here.
func (e *endpoint) user() string {
	if e.username != "" {
		return e.username
	}
	if cert := e.certificate(); cert != nil {
		return cert.Subject.CommonName
	}
	return "USER"
}

// certificate is the one that is shown to this endpoint; nil for none.
func (e *endpoint) certificate() *x509.Certificate {
	if e.tls == nil || e.tls.GetClientCertificate == nil {
		return nil
	}
	cert, err := e.tls.GetClientCertificate(&tls.CertificateRequestInfo{})
	if err != nil {
		return nil
	}
	return cert.Leaf
}

// proven is the certificate that the endpoint has shown; nil for none.
func (e *endpoint) proven() *x509.Certificate {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.proof
}

// prove has tls keep the certificate that the endpoint shows.
func (e *endpoint) prove() {
	if e.tls == nil {
		return
	}
	e.tls = e.tls.Clone()
	before := e.tls.VerifyConnection
	e.tls.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) > 0 {
			e.mu.Lock()
			e.proof = s.PeerCertificates[0]
			e.mu.Unlock()
		}
		if before != nil {
			return before(s)
		}
		return nil
	}
}

// expired returns when the certificate shown to this endpoint ended, if it has.
func (e *endpoint) expired() time.Time {
	if cert := e.certificate(); cert != nil && time.Now().After(cert.NotAfter) {
		return cert.NotAfter
	}
	return time.Time{}
}

// An explained error tells the endpoint, the cause and the cure.
type explained struct {
	endpoint, cure, text string
	err                  error
}

func (e *explained) Error() string { return e.endpoint + ": " + e.text + " (" + e.cure + ")" }
func (e *explained) Unwrap() error { return e.err }

// What etcd denies for good, by its own answer. In a cure, USER is who asks,
// and PREFIX/ where the records are.
var denials = []struct {
	err  error
	cure string
}{
	{rpctypes.ErrPermissionDenied, "USER needs a role with readwrite on PREFIX/: etcdctl role grant-permission deputy --prefix=true readwrite PREFIX/, then etcdctl user grant-role USER deputy"},
	{rpctypes.ErrAuthFailed, "the user name or the password is wrong: see username and password in [etcd]"},
	{rpctypes.ErrUserEmpty, "etcd wants to know who asks: set username and password in [etcd], or cert_file and key_file"},
	{rpctypes.ErrUserNotFound, "the user of [etcd] does not exist: etcdctl user add"},
	{rpctypes.ErrNoSpace, "etcd has reached its quota, so nobody can hold a role: etcdctl compact REVISION, etcdctl defrag --cluster, etcdctl alarm disarm"},
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
