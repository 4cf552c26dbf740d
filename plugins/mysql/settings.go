package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// settings are what one may write.
type settings struct {
	Socket         string        `toml:"socket" doc:"the server's unix socket; / in front" default:"/run/mysqld/mysqld.sock"`
	Address        string        `toml:"address" doc:"host:port of the server, instead of the socket; the server of this node, whatever the address"`
	User           string        `toml:"user" doc:"the account of deputy's own, which nothing else may use: its other connections are ended. Default: that of defaults_file, else deputy"`
	Password       string        `toml:"password" doc:"its password, as { credential = \"NAME\" } or { file = \"/path\" }; none where the server knows the account by the socket (unix_socket, auth_socket)" sensitive:"true"`
	DefaultsFile   string        `toml:"defaults_file" doc:"an option file whose group [client] has user, password, socket, host, port and the ssl options that are not given here; nobody but its owner and group may read it"`
	ConnectTimeout time.Duration `toml:"connect_timeout" doc:"how long a connection may take until the server has greeted" default:"2s" min:"10ms" max:"1m"`
	TLS            tlsSettings   `toml:"tls" doc:"TLS with the server at address"`

	Unit         string   `toml:"unit" doc:"the server's systemd unit, such as mariadb.service: whether it runs is seen there, and a server that cannot be demoted otherwise is killed there"`
	OnStuck      string   `toml:"on_stuck" doc:"what becomes of a server that a forced demotion cannot make read-only, as one that is frozen: kill ends the unit's processes, report leaves it to whatever fences the node" default:"kill" enum:"kill|report"`
	ServerConfig []string `toml:"server_config" doc:"the server's option files, where read_only = 1 has to be, so that a server that crashed comes back read-only; looked at where the server itself does not tell" default:"/etc/my.cnf,/etc/mysql/my.cnf"`
	ReadOnly     string   `toml:"require_read_only" doc:"what becomes of a promotion where the server is seen to start writable: refuse or warn" default:"refuse" enum:"refuse|warn"`

	Exempt []string `toml:"exempt" doc:"accounts whose connections are never ended by a planned demotion, by name, such as monitoring"`

	Replication replicationSettings `toml:"replication" doc:"how this server follows the primary"`
	Promotion   promoteSettings     `toml:"promote" doc:"how this server becomes primary"`
	Demotion    demoteSettings      `toml:"demote" doc:"how it leaves the role when there is time"`
	MaxLag      time.Duration       `toml:"max_lag" doc:"a standby whose applier is further behind is not fit" default:"30s" min:"1s" max:"24h"`
}

// maxAddress is how long the path of a unix socket may be (unix(7)).
const maxAddress = 107

type tlsSettings struct {
	Mode       string `toml:"mode" doc:"off, required (not verified: against listeners only), or verify (the certificate is checked against ca and server_name)" default:"off" enum:"off|required|verify"`
	CA         string `toml:"ca" doc:"file of the authority's certificates; the system's by default"`
	Cert       string `toml:"cert" doc:"file of this client's certificate"`
	Key        string `toml:"key" doc:"file of its key"`
	ServerName string `toml:"server_name" doc:"the name in the server's certificate; the host of the address by default"`
}

type replicationSettings struct {
	User      string        `toml:"user" doc:"the account with REPLICATION SLAVE on every server, by which this one follows the primary and a demoting one asks its successor how far it is; without it replication is left alone"`
	Password  string        `toml:"password" doc:"its password, as { credential = \"NAME\" } or { file = \"/path\" }" sensitive:"true"`
	Port      int           `toml:"port" doc:"the port of the servers of all nodes" default:"3306" min:"1" max:"65535"`
	TLS       bool          `toml:"tls" doc:"replicate by TLS, and ask other servers by it" default:"false"`
	CA        string        `toml:"ca" doc:"file of the authority's certificates; given, the primary's certificate is verified; this plugin and the server read it"`
	Retry     time.Duration `toml:"connect_retry" doc:"how soon a lost connection to the primary is tried again" default:"1s" min:"1s" max:"1h"`
	Heartbeat time.Duration `toml:"heartbeat" doc:"how often an idle primary is heard of" default:"2s" min:"1s" max:"1h"`
}

type promoteSettings struct {
	ApplyTimeout   time.Duration `toml:"apply_timeout" doc:"how long received transactions may take to be applied; no longer than the part's own timeout leaves" default:"30s" min:"0s" max:"24h"`
	StallTimeout   time.Duration `toml:"stall_timeout" doc:"how long the applier may stand still meanwhile" default:"10s" min:"100ms" max:"24h"`
	OnUnapplied    string        `toml:"on_unapplied" doc:"what becomes of a promotion while received transactions are not applied in time: refuse, or force, which loses them" default:"refuse" enum:"refuse|force"`
	SemiSync       string        `toml:"semisync" doc:"keep leaves the sides of semi-synchronous replication as they are; manage turns the source's on and the replica's off, and a demotion or follow the reverse" default:"keep" enum:"keep|manage"`
	EventScheduler string        `toml:"event_scheduler" doc:"keep leaves it as it is; manage turns it on on the primary and off on the others (MariaDB needs SUPER for that)" default:"keep" enum:"keep|manage"`
}

type demoteSettings struct {
	LockWait     time.Duration `toml:"lock_wait" doc:"how long statements that run may take to end by themselves; new writes wait meanwhile, and what still runs then stands in the way" default:"1s" min:"0s" max:"1h"`
	OnBlockers   string        `toml:"on_blockers" doc:"what becomes of what stands in the way: kill ends its connections, undo leaves the server writable and says what it is" default:"kill" enum:"kill|undo"`
	Disconnect   string        `toml:"disconnect" doc:"whose connections end once the server is read-only: all, so that clients connect anew and find the new primary, or those with an open transaction that has written" default:"all" enum:"all|writers"`
	WaitReplicas time.Duration `toml:"wait_replicas" doc:"how long the successor may take to have applied everything; if it has not, the server is writable again" default:"10s" min:"0s" max:"1h"`
}

// unitName is what names of units may be, see systemd.unit(5).
var unitName = regexp.MustCompile(`^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]+)?\.service$`)

// Validate tells what is wrong with the whole.
func (s *settings) Validate() error {
	var wrong []error
	complain := func(key, format string, args ...any) {
		wrong = append(wrong, &sdk.KeyError{Key: key, Err: fmt.Errorf(format, args...)})
	}
	if s.Address != "" {
		if _, port, err := net.SplitHostPort(s.Address); err != nil || port == "" {
			complain("address", "%q is not host:port, such as 127.0.0.1:3306 or [::1]:3306", s.Address)
		}
	}
	switch {
	case s.Socket == "" && s.Address == "":
		complain("socket", "is empty, and no address is given instead")
	case s.Socket != "" && !filepath.IsAbs(s.Socket):
		complain("socket", "%q must begin with /", s.Socket)
	case len(s.Socket) > maxAddress:
		complain("socket", "is longer than the %d bytes that the kernel takes", maxAddress)
	}
	if s.Unit != "" && !unitName.MatchString(s.Unit) {
		complain("unit", "%q is not the whole name of a service unit, such as mariadb.service", s.Unit)
	}
	if s.TLS.Mode != "off" && s.Address == "" {
		complain("tls.mode", "is for address; a unix socket needs none")
	}
	if (s.TLS.Cert == "") != (s.TLS.Key == "") {
		complain("tls.key", "cert and key go together")
	}
	for key, file := range map[string]string{"defaults_file": s.DefaultsFile, "tls.ca": s.TLS.CA, "tls.cert": s.TLS.Cert, "tls.key": s.TLS.Key, "replication.ca": s.Replication.CA} {
		if file != "" && !filepath.IsAbs(file) {
			complain(key, "%q must begin with /", file)
		}
	}
	if s.Replication.CA != "" && !s.Replication.TLS {
		complain("replication.ca", "is for tls = true")
	}
	for key, text := range map[string]string{"user": s.User, "replication.user": s.Replication.User} {
		if strings.ContainsAny(text, "\x00\n") || len(text) > 80 {
			complain(key, "is no name of an account")
		}
	}
	return errors.Join(wrong...)
}
