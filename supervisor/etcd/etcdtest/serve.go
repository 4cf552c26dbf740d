package etcdtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
)

// memberEnv carries a member's spec into its process.
const memberEnv = "DEPUTY_ETCDTEST_MEMBER"

// A spec is all that the process of a member needs to know.
type spec struct {
	Name          string
	Dir           string
	ListenPeer    string
	ListenClient  string
	AdvertisePeer string
	Advertise     string
	Initial       string // initial cluster
	Token         string
	HeartbeatMS   uint
	ElectionMS    uint
	NoFsync       bool
	Quota         int64
	Auth          string
	AuthTTL       uint // seconds
	Compact       string
	LogLevel      string
	TLS           *TLS
}

// A report is a line that a member writes to its parent.
type report struct {
	Ready  bool   `json:"ready,omitempty"`
	Self   uint64 `json:"self,omitempty"`
	Leader uint64 `json:"leader,omitempty"`
	Term   uint64 `json:"term,omitempty"`
}

// Main returns at once, except in a process that [Start] has made: there it is
// a member of an etcd cluster until its parent ends it, and never returns. It
// must run before anything else that the binary does.
func Main() {
	s, ok := os.LookupEnv(memberEnv)
	if !ok {
		return
	}
	// The parent holds the other end of our standard input. When the parent
	// dies, by whatever means, the kernel closes it.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	if err := serve(s, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve runs a member and reports each change of leader. It returns only on
// error.
func serve(env string, out io.Writer) error {
	var s spec
	if err := json.Unmarshal([]byte(env), &s); err != nil {
		return fmt.Errorf("read %s: %w", memberEnv, err)
	}
	cfg, err := s.config()
	if err != nil {
		return err
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("start etcd member %s: %w", s.Name, err)
	}

	reports := json.NewEncoder(out)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last report
	ready := e.Server.ReadyNotify()
	for {
		now := report{
			Ready:  last.Ready,
			Self:   uint64(e.Server.MemberID()),
			Leader: uint64(e.Server.Leader()),
			Term:   e.Server.Term(),
		}
		select {
		case <-ready:
			now.Ready, ready = true, nil
		case <-tick.C:
		case err := <-e.Err():
			return fmt.Errorf("run etcd member %s: %w", s.Name, err)
		case <-e.Server.StopNotify():
			return fmt.Errorf("etcd member %s stopped", s.Name)
		}
		if now != last {
			if err := reports.Encode(now); err != nil {
				return err
			}
			last = now
		}
	}
}

func (s spec) config() (*embed.Config, error) {
	cfg := embed.NewConfig()
	cfg.Name = s.Name
	cfg.Dir = s.Dir
	for _, u := range []struct {
		to   *[]url.URL
		from string
	}{
		{&cfg.ListenPeerUrls, s.ListenPeer},
		{&cfg.ListenClientUrls, s.ListenClient},
		{&cfg.AdvertisePeerUrls, s.AdvertisePeer},
		{&cfg.AdvertiseClientUrls, s.Advertise},
	} {
		parsed, err := url.Parse(u.from)
		if err != nil {
			return nil, err
		}
		*u.to = []url.URL{*parsed}
	}
	cfg.InitialCluster = s.Initial
	// Members with different tokens wait for each other for ever.
	cfg.InitialClusterToken = s.Token
	cfg.TickMs = s.HeartbeatMS
	cfg.ElectionMs = s.ElectionMS
	cfg.UnsafeNoFsync = s.NoFsync
	cfg.QuotaBackendBytes = s.Quota
	cfg.AuthToken = cmp.Or(s.Auth, cfg.AuthToken)
	cfg.AuthTokenTTL = cmp.Or(s.AuthTTL, cfg.AuthTokenTTL)
	if mode, retention, ok := strings.Cut(s.Compact, "="); ok {
		cfg.AutoCompactionMode, cfg.AutoCompactionRetention = mode, retention
	}
	cfg.EnableGRPCGateway = false
	cfg.BcryptCost = 4 // the least there is: passwords here protect nothing
	cfg.LogLevel = s.LogLevel
	cfg.LogOutputs = []string{"stderr"}
	if s.TLS != nil {
		cfg.ClientTLSInfo = transport.TLSInfo{
			CertFile:       s.TLS.Cert,
			KeyFile:        s.TLS.Key,
			TrustedCAFile:  s.TLS.CA,
			ClientCertAuth: s.TLS.Mutual,
		}
		// etcd itself reads them only when it is about to serve.
		if _, err := cfg.ClientTLSInfo.ServerConfig(); err != nil {
			return nil, fmt.Errorf("prepare TLS: %w", err)
		}
	}
	return cfg, nil
}
