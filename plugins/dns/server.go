package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/miekg/dns"
)

// fudge is by how much clocks may differ, in seconds, as RFC 8945, 10 has it.
const fudge = 300

// A server is a name server of a zone.
type server struct {
	at      endpoint
	zone    string
	timeout time.Duration    // for one answer
	key     *tsig            // nil: questions are not signed
	now     func() time.Time // what is signed with
}

// A line is a connection to a server: TCP always, because an answer by UDP may
// be anybody's, and a message of many records does not fit. It is for one act,
// and one question at a time.
type line struct {
	server
	conn net.Conn
}

func (s server) line() *line { return &line{server: s} }

func (l *line) hangUp() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// ask sends a message and returns the answer. Errors are a *fault.
func (l *line) ask(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.timeout, fmt.Errorf("no answer within %s", l.timeout))
	defer cancel()
	if l.conn == nil {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", string(l.at))
		if err != nil {
			return nil, l.fault(unsent, "cannot be reached: %w: start it, let TCP to it through, or correct server", causeOf(ctx, err))
		}
		l.conn = c
	}
	r, signed, err := l.exchange(ctx, m)
	if err != nil {
		l.hangUp()
	}
	if r == nil {
		return nil, l.fault(silent(m), "%w: its log and the network tell why", err)
	}
	return r, l.judge(m, r, signed, err)
}

// silent is what has become of a message without an answer that counts.
func silent(m *dns.Msg) effect {
	if m.Opcode == dns.OpcodeUpdate {
		return lost
	}
	return failed
}

// exchange returns the answer, when there is any, and whether it is signed as
// it has to be. An error with an answer says that it proves nothing.
func (l *line) exchange(ctx context.Context, m *dns.Msg) (r *dns.Msg, signed bool, err error) {
	conn := l.conn
	over := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // closed already at worst
	defer func() {
		if !over() {
			l.hangUp() // its deadline is over for good
		}
	}()
	c := &dns.Conn{Conn: conn} // anew for each: the library would have a signature go on from the last
	if l.key != nil {
		c.TsigSecret = map[string]string{string(l.key.Name): l.key.Secret}
		m.SetTsig(string(l.key.Name), dns.Fqdn(l.key.Algorithm), fudge, l.now().Unix())
	}
	if err := c.WriteMsg(m); err != nil {
		return nil, false, fmt.Errorf("the connection broke: %w", causeOf(ctx, err))
	}
	r, err = c.ReadMsg()
	switch {
	case r == nil:
		return nil, false, fmt.Errorf("the connection broke: %w", causeOf(ctx, err))
	case err != nil && r.IsTsig() == nil:
		return nil, false, fmt.Errorf("what it sent is no answer: %w", err)
	case r.Id != m.Id || !r.Response || r.Opcode != m.Opcode:
		return nil, false, errors.New("what it sent is the answer to something else")
	case err != nil:
		return r, false, fmt.Errorf("its signature is not right: %w", err)
	}
	return r, r.IsTsig() != nil, nil // the library only verifies what is there
}

// causeOf is why ctx ended, if that is what an error comes from.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// judge tells what an answer says besides its records, as a *fault.
func (l *line) judge(m, r *dns.Msg, signed bool, unproven error) error {
	update, question := m.Opcode == dns.OpcodeUpdate, m.Opcode == dns.OpcodeQuery
	if l.key != nil { // a refusal may come without a signature, or with one for nobody, as BIND's of another zone does
		if t := r.IsTsig(); t != nil && t.Error != dns.RcodeSuccess {
			return l.ofKey(t)
		}
		if !signed && (r.Rcode == dns.RcodeSuccess || r.Rcode == dns.RcodeYXRrset || r.Rcode == dns.RcodeNXRrset) {
			if unproven == nil {
				unproven = errors.New("its answer is not signed")
			}
			return l.fault(silent(m), "%w, so that it proves nothing: is something between this node and the name server?", unproven)
		}
	}
	switch said := dns.RcodeToString[r.Rcode]; {
	case r.Rcode == dns.RcodeSuccess && question && !r.Authoritative:
		return l.fault(refused, "has no authority over the zone: correct zone or server, or see in its log why it has not loaded the zone")
	case r.Rcode == dns.RcodeSuccess, question && r.Rcode == dns.RcodeNameError && r.Authoritative:
		return nil
	case update && (r.Rcode == dns.RcodeYXRrset || r.Rcode == dns.RcodeNXRrset || r.Rcode == dns.RcodeYXDomain || r.Rcode == dns.RcodeNameError):
		return l.fault(changed, "the owner record is not what it was any more (%s)", said)
	case r.Rcode == dns.RcodeServerFailure:
		return l.fault(failed, "it could not (%s): its log tells why; a journal that it cannot write is usual, and a zone that is not loaded", said)
	case update && r.Rcode == dns.RcodeRefused:
		return l.fault(refused, "does not let the key %s change these records (%s): grant it that, in BIND by update-policy, in Knot by an acl; the owner record is one of them; or correct server, if it is not the zone's primary", l.key.Name, said)
	case question && r.Rcode == dns.RcodeRefused:
		return l.fault(refused, "does not answer for the zone (%s): correct zone or server, or let this node ask (allow-query)", said)
	case !update && !question && r.Rcode != dns.RcodeServerFailure:
		return l.fault(refused, "does not take notifications with the key %s (%s): allow it, in BIND by allow-notify, in Knot by an acl", l.key.Name, said)
	case r.Rcode == dns.RcodeNotAuth, r.Rcode == dns.RcodeNotZone:
		return l.fault(refused, "is not the primary of a zone of that name (%s): correct zone or server", said)
	case r.Rcode == dns.RcodeNotImplemented, r.Rcode == dns.RcodeFormatError:
		return l.fault(refused, "does not take dynamic updates (%s): allow them in the name server, or correct server", said)
	default:
		return l.fault(refused, "says %s (%d)", said, r.Rcode)
	}
}

// ofKey tells what the name server has against the signature.
func (l *line) ofKey(t *dns.TSIG) *fault {
	k := l.key
	switch t.Error {
	case dns.RcodeBadSig:
		return l.fault(refused, "has another secret for the key %s (BADSIG): correct tsig.secret", k.Name)
	case dns.RcodeBadKey:
		return l.fault(refused, "does not take the key %s with %s (BADKEY): correct tsig or server, or give it that key and let it do this; Knot also says so when its acl does not fit", k.Name, k.Algorithm)
	case dns.RcodeBadTime:
		away := "is more than 5 minutes away from its own"
		if there, err := hex.DecodeString(t.OtherData); err == nil && len(there) == 6 { // RFC 8945, 5.2.3
			var seconds int64
			for _, b := range there {
				seconds = seconds<<8 | int64(b)
			}
			ahead := l.now().Sub(time.Unix(seconds, 0)).Round(time.Second)
			away = fmt.Sprintf("is %s ahead of its own", ahead)
			if ahead < 0 {
				away = fmt.Sprintf("is %s behind its own", -ahead)
			}
		}
		return l.fault(refused, "finds that this node's clock %s (BADTIME): have both keep time by NTP", away)
	default:
		return l.fault(refused, "does not take the signature (TSIG error %d)", t.Error)
	}
}

// An effect is what can have become of a message.
type effect int

const (
	done    effect = iota // all of it
	unsent                // nothing: it was not sent
	refused               // nothing, and somebody has to change something first
	changed               // nothing: a prerequisite does not hold
	failed                // nothing, says the name server
	lost                  // all or nothing: nobody knows
)

// A fault is why a name server did not do what it was asked for.
type fault struct {
	effect effect
	err    error
}

func (f *fault) Error() string { return f.err.Error() }

// Unwrap returns what is behind it.
func (f *fault) Unwrap() error { return f.err }

func (l *line) fault(e effect, format string, args ...any) *fault {
	return &fault{e, fmt.Errorf("name server %s, zone %s: %w", l.at, l.zone, fmt.Errorf(format, args...))}
}

// effectOf is what a message came to whose answer was err.
func effectOf(err error) effect {
	if err == nil {
		return done
	}
	if f, ok := errors.AsType[*fault](err); ok {
		return f.effect
	}
	return lost
}

// set asks for the records of a type at a name.
func (l *line) set(ctx context.Context, name string, kind uint16) (set, error) {
	m := new(dns.Msg).SetQuestion(name, kind)
	m.RecursionDesired = false
	r, err := l.ask(ctx, m)
	if err != nil {
		return set{}, err
	}
	return setOf(name, kind, r.Answer), nil
}

// lacking tells which of the sets are not served as they should be; nothing
// when all are.
func (l *line) lacking(ctx context.Context, want []set, withTTL bool) (string, error) {
	for _, x := range want {
		served, err := l.set(ctx, x.name, x.kind)
		if err != nil {
			return "", err
		}
		if lacks := x.lacks(served, withTTL); lacks != "" {
			return lacks, nil
		}
	}
	return "", nil
}

// owner reads the owner record; none is nil.
func (l *line) owner(ctx context.Context, name domain) (*owner, error) {
	x, err := l.set(ctx, string(name), dns.TypeTXT)
	if err != nil || len(x.records) == 0 {
		return nil, err
	}
	if len(x.records) > 1 {
		return nil, l.fault(refused, "%s has %d TXT records, and an owner record is one: remove them, or set owner to a name that nothing else uses", name, len(x.records))
	}
	o, err := ownerOf(x.records[0].(*dns.TXT).Txt)
	if err != nil {
		return nil, l.fault(refused, "the TXT record %s is no owner record: %w: remove it, or set owner to a name that nothing else uses", name, err)
	}
	return &o, nil
}

// replace has the owner record and the sets replaced in one message, if the
// owner record is still what it was. Sets without records go.
func (l *line) replace(ctx context.Context, name domain, before *owner, now owner, sets []set) error {
	record := func(o owner) dns.RR {
		return &dns.TXT{Hdr: dns.RR_Header{Name: string(name), Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: o.texts()}
	}
	m := new(dns.Msg).SetUpdate(l.zone)
	if before == nil {
		m.RRsetNotUsed([]dns.RR{record(now)})
	} else {
		m.Used([]dns.RR{record(*before)})
	}
	m.RemoveRRset([]dns.RR{record(now)})
	m.Insert([]dns.RR{record(now)})
	for _, x := range sets {
		m.RemoveRRset([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: x.name, Rrtype: x.kind}}})
		m.Insert(x.records)
	}
	_, err := l.ask(ctx, m)
	return err
}
