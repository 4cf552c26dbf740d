package broken

// The names of the mutations.
const (
	Deadline       = "deadline removed"
	Watchdog       = "watchdog off"
	Gate           = "gate off"
	Guard          = "kernel guard off"
	Lifetime       = "address lifetime off"
	PulseCompare   = "compare of the pulse removed"
	PrimaryCompare = "compare of the primary removed"
	TermCompare    = "compare of the term removed"
	Late           = "challengers hear of pulses late"
	Blind          = "challengers look no more"
	Deaf           = "all hear of everything late"
	ResignFirst    = "resigned before demoted"
	Forwards       = "demoted in the order of promotion"
	OldTerm        = "term written again"
	TooSoon        = "promoted before the role is won"
)

// The faults that the lab does not play otherwise.
const (
	Thawed = "standby thawed, primary cut off"
	Ended  = "supervisor ended"
	Staged = "switchover on a stage"
)

// Mutations are all of them.
func Mutations() []Mutation {
	return []Mutation{
		{
			Name:  Deadline,
			Why:   "a primary that does not reach etcd demotes itself before another may be one",
			Fault: "partition from etcd",
			Edits: []Edit{{
				"supervisor/etcd/pulse.go",
				"deadline, changed, held := p.sent.Add(p.timing.Lost), p.changed, false",
				"deadline, changed, held := p.sent.Add(time.Hour), p.changed, false",
			}},
		},
		{
			Name:  Watchdog,
			Why:   "PID 1 kills a supervisor that stands still, and demotes behind it, within the lease",
			Fault: "supervisor stopped",
			Edits: []Edit{{
				"supervisor/systemd/herald.go",
				"leash, good := h.Leash(), longSilence",
				"leash, good := supervisor.Leash{}, longSilence",
			}},
		},
		{
			Name:  Gate,
			Why:   "what lives outside the supervisor demotes behind one that does not come back",
			Fault: "supervisor gone for good",
			Edits: []Edit{{
				"supervisor/deputy/gate.go",
				"return end, again",
				"return end.Add(time.Hour), now.Add(t.Renew)",
			}},
		},
		{
			Name:  Guard,
			Why:   "the kernel silences addresses and ports when the lease is not renewed, with no process alive",
			Fault: "host frozen",
			Edits: []Edit{{
				"plugins/kernelguard/table.go",
				"Key: []byte{key}, Timeout: left}",
				"Key: []byte{key}, Timeout: left + time.Hour}",
			}},
		},
		{
			Name: Lifetime,
			Why:  "an address that was left behind goes by itself, some second after the lease: it would end what is to be seen",
			Edits: []Edit{{
				"plugins/vip/host.go",
				"(max(left, 0)+time.Second-1)/time.Second) + 1",
				"(max(left, 0)+time.Second-1)/time.Second) + 3600",
			}},
		},
		{
			Name:  PulseCompare,
			Why:   "what a challenger has not heard of counts all the same: the pulse it holds for silent is compared",
			Fault: Thawed,
			Edits: []Edit{{
				"supervisor/etcd/elector.go",
				"t.If = append(t.If, is(k.pulse(b.Named), b.NamedRev))",
				"",
			}},
		},
		{
			Name:  PrimaryCompare,
			Why:   "of two challengers who take at once one alone wins",
			Fault: "host frozen",
			Edits: []Edit{{
				"supervisor/etcd/elector.go",
				"is(primary, b.Primary),",
				"",
			}},
		},
		{
			Name: TermCompare,
			Why:  "the record of the term is compared, too, so the second of two who take at once is refused for that as well",
			Edits: []Edit{{
				"supervisor/etcd/elector.go",
				"is(termKey, b.Term),",
				"",
			}},
		},
		{
			Name: Late,
			Why:  "a challenger that was frozen hears at once of what it has missed",
			Edits: []Edit{{
				"supervisor/etcd/sight.go",
				"now := s.c.clock.Now()\n\ts.mu.Lock()\n\tdefer s.mu.Unlock()\n\ts.count++",
				"now := s.c.clock.Now()\n\ttime.Sleep(200 * time.Millisecond)\n\ts.mu.Lock()\n\tdefer s.mu.Unlock()\n\ts.count++",
			}},
		},
		{
			Name: Blind,
			Why:  "a challenger reads the pulse once more before it holds it for silent",
			Edits: []Edit{{
				"supervisor/etcd/sight.go",
				"if _, err := s.c.sync(rctx, s.view); err != nil {",
				"if due {\n\t\ts.c.log.Info(\"its clock is enough\")\n\t} else if _, err := s.c.sync(rctx, s.view); err != nil {",
			}},
		},
		{
			Name: Deaf,
			Why:  "candidates take one after the other, so that the second has heard of the first",
			Edits: []Edit{{
				"supervisor/etcd/view.go",
				"case b, ok := <-ch:\n\t\t\tbegin.Stop()\n",
				"case b, ok := <-ch:\n\t\t\tbegin.Stop()\n\t\t\ttime.Sleep(200 * time.Millisecond)\n",
			}},
		},
		{
			Name:  ResignFirst,
			Why:   "the role is given up only when everything is proven demoted",
			Fault: "switchover",
			Edits: []Edit{{
				"supervisor/demoting.go",
				"err := m.leave(ctx, lease, e, m.budget(e))",
				"_ = lease.Resign(ctx)\n\t\t\terr := m.leave(ctx, lease, e, m.budget(e))",
			}},
		},
		{
			Name:  Forwards,
			Why:   "parts are demoted in reverse: clients stop coming before what serves them stops. One node acts all the same, so from outside it looks like any other switchover",
			Fault: Staged,
			Edits: []Edit{{
				"supervisor/demoting.go",
				"for _, p := range slices.Backward(m.parts) {",
				"for _, p := range slices.All(m.parts) {",
			}},
		},
		{
			Name:  OldTerm,
			Why:   "terms only grow, or they fence nothing",
			Fault: Ended,
			Edits: []Edit{{
				"supervisor/etcd/elector.go",
				"term := max(e.highest, st.Term.Term) + 1",
				"term := max(e.highest, st.Term.Term, 1)",
			}},
		},
		{
			Name:  TooSoon,
			Why:   "nobody acts who does not hold the role",
			Fault: Ended,
			Edits: []Edit{{
				"supervisor/standby.go",
				"m.await(ctx, v.at, nil)\n\t\t\tcontinue\n\t\t}\n\t\tlease, err := m.take(ctx, s)",
				"m.await(ctx, v.at, nil)\n\t\t\tcontinue\n\t\t}\n" +
					"\t\tfor _, p := range m.parts {\n" +
					"\t\t\tt := m.transition(sdk.Promote, p, s.Term.Term+1, ending{sdk.ReasonElection, errors.New(\"it will be won\")})\n" +
					"\t\t\tt.Timeout, t.LeaseUntil = m.timing.TTL, m.clock.Now().Add(m.timing.TTL)\n" +
					"\t\t\tm.do(ctx, p, t, nil)\n" +
					"\t\t}\n" +
					"\t\tlease, err := m.take(ctx, s)",
			}},
		},
	}
}
