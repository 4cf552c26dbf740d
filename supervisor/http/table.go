package http

import (
	"maps"
	"slices"

	"github.com/deputy-ha/deputy/sdk"
)

// table is every metric that there is, by name. deputy-metrics(7) tells the same.
func table() []metric {
	all := []metric{
		{"deputy_service_up", gauge, nil, "Whether the service's supervisor answers on this node.", nil},
		{"deputy_service_info", gauge, []string{"version"}, "Always 1; the version of deputy that supervises the service.", func(a *answer, _ sdk.Instant, s *samples) {
			s.add(1, a.Version)
		}},
		{"deputy_start_timestamp_seconds", gauge, nil, "When the supervisor's process began, and with it its counters.", func(a *answer, _ sdk.Instant, s *samples) {
			s.add(stamp(a.Began))
		}},

		{"deputy_primary", gauge, nil, "Whether this node is primary and its lease has not run out.", func(a *answer, now sdk.Instant, s *samples) {
			s.add(number(a.Role == sdk.RolePrimary && now < a.LeaseUntil))
		}},
		{"deputy_role", gauge, []string{"role"}, "1 for the role that this node has in the service, 0 for the others.", func(a *answer, _ sdk.Instant, s *samples) {
			for _, r := range roles() {
				s.add(number(r == a.Role), string(r))
			}
		}},
		{"deputy_role_change_timestamp_seconds", gauge, nil, "Since when this node has its role.", func(a *answer, _ sdk.Instant, s *samples) {
			s.add(stamp(a.Since))
		}},
		{"deputy_term", gauge, nil, "Number of the last tenure that this node knows of.", func(a *answer, _ sdk.Instant, s *samples) {
			s.add(float64(a.Term))
		}},
		{"deputy_fit", gauge, nil, "Whether the checks let this node lead.", func(a *answer, _ sdk.Instant, s *samples) {
			s.add(number(a.Fit))
		}},
		{"deputy_paused", gauge, nil, "Whether an operator has suspended automatic take-overs.", func(a *answer, _ sdk.Instant, s *samples) {
			s.add(number(a.Paused))
		}},
		{"deputy_drained", gauge, nil, "Whether this node is to lead nothing.", func(a *answer, _ sdk.Instant, s *samples) {
			s.add(number(a.Drained))
		}},
		{"deputy_reserved", gauge, nil, "Whether the role is on its way to a node that was named.", func(a *answer, _ sdk.Instant, s *samples) {
			s.add(number(a.Reserved))
		}},
		{"deputy_members", gauge, nil, "Nodes that take part in the election, as this node sees it.", func(a *answer, _ sdk.Instant, s *samples) {
			s.add(float64(a.Members))
		}},
		{"deputy_members_fit", gauge, nil, "Nodes that take part and are fit, as this node sees it.", func(a *answer, _ sdk.Instant, s *samples) {
			s.add(float64(a.Fits))
		}},
		{"deputy_definitions", gauge, nil, "Different definitions of the service among the nodes that take part; more than 1 wants to be put right.", func(a *answer, _ sdk.Instant, s *samples) {
			s.add(float64(a.Definitions))
		}},
		{"deputy_primary_seen", gauge, nil, "Whether some node is primary by the records as this node last read them.", func(a *answer, _ sdk.Instant, s *samples) {
			s.add(number(a.Seen))
		}},
		{"deputy_without_primary_seconds_total", counter, nil, "Time during which the records showed this node no primary.", func(a *answer, _ sdk.Instant, s *samples) {
			s.add(a.Leaderless.Seconds())
		}},

		{"deputy_lease_ttl_seconds", gauge, nil, "How soon after a node dies another may be primary.", func(a *answer, _ sdk.Instant, s *samples) {
			s.add(a.TTL.Seconds())
		}},
		{"deputy_lease_remaining_seconds", gauge, nil, "Time until the local deadline of the lease that this node holds.", func(a *answer, now sdk.Instant, s *samples) {
			if a.Held {
				s.add(max(0, a.LeaseUntil.Sub(now)).Seconds())
			}
		}},
		{"deputy_lease_renewal_duration_seconds", histogram, nil, "What etcd took to acknowledge a renewal; nodes without a lease send them, too.", func(a *answer, _ sdk.Instant, s *samples) {
			if a.Renewals != nil {
				s.histogram(a.Renewals.Bounds, a.Renewals.Took)
			}
		}},
		{"deputy_lease_renewal_failures_total", counter, nil, "Renewals that were not acknowledged in their time.", func(a *answer, _ sdk.Instant, s *samples) {
			if a.Renewals != nil {
				s.add(float64(a.Renewals.Failures))
			}
		}},

		{"deputy_tenures_total", counter, []string{"reason"}, "Times that this node took the role, by why.", func(a *answer, _ sdk.Instant, s *samples) {
			counts(s, a.Tenures)
		}},
		{"deputy_promotions_total", counter, []string{"outcome"}, "Promotions of the whole service that were begun here and are over.", func(a *answer, _ sdk.Instant, s *samples) {
			counts(s, a.Promotions)
		}},
		{"deputy_demotions_total", counter, []string{"outcome"}, "Demotions of the whole service that were begun here and are over.", func(a *answer, _ sdk.Instant, s *samples) {
			counts(s, a.Demotions)
		}},
		{"deputy_hook_duration_seconds", histogram, []string{"plugin", "act", "outcome"}, "What one attempt of a plugin at an act took.", func(a *answer, _ sdk.Instant, s *samples) {
			for _, p := range a.Parts {
				for _, h := range p.Hooks {
					s.histogram(a.HookBounds, h.Took, p.Name, string(h.Act), string(h.Outcome))
				}
			}
		}},
		{"deputy_check_duration_seconds", summary, []string{"plugin", "result"}, "What a plugin's checks took.", func(a *answer, _ sdk.Instant, s *samples) {
			for _, p := range a.Parts {
				for _, c := range p.Checks {
					s.summary(c.Count, c.Sum, p.Name, string(c.Result))
				}
			}
		}},

		{"deputy_plugin_info", gauge, []string{"plugin", "use"}, "Always 1; which plugin a part of the service uses.", func(a *answer, _ sdk.Instant, s *samples) {
			for _, p := range a.Parts {
				s.add(1, p.Name, p.Use)
			}
		}},
		{"deputy_plugin_promoted", gauge, []string{"plugin"}, "Whether the plugin may act as primary on this node.", func(a *answer, _ sdk.Instant, s *samples) {
			for _, p := range a.Parts {
				s.add(number(p.Promoted), p.Name)
			}
		}},
		{"deputy_plugin_fit", gauge, []string{"plugin"}, "Whether the plugin's check passes; of plugins that were checked in this role.", func(a *answer, _ sdk.Instant, s *samples) {
			for _, p := range a.Parts {
				if p.Checked {
					s.add(number(p.Fit), p.Name)
				}
			}
		}},
		{"deputy_plugin_restarts_total", counter, []string{"plugin", "cause"}, "Processes of a plugin that had to be replaced, and replacements that did not start.", func(a *answer, _ sdk.Instant, s *samples) {
			for _, p := range a.Parts {
				if r := p.Restarts; r != nil {
					s.add(float64(r.Crashes), p.Name, "crash")
					s.add(float64(r.Freezes), p.Name, "freeze")
					s.add(float64(r.Kills), p.Name, "kill")
					s.add(float64(r.Starts), p.Name, "start")
				}
			}
		}},

		{"deputy_etcd_reachable", gauge, nil, "Whether etcd answers and does what it is asked.", func(a *answer, _ sdk.Instant, s *samples) {
			if a.Contact != nil {
				s.add(number(a.Contact.Reachable))
			}
		}},
		{"deputy_etcd_unreachable_seconds_total", counter, nil, "Time during which etcd did not answer, or denied what it was asked.", func(a *answer, _ sdk.Instant, s *samples) {
			if a.Contact != nil {
				s.add(a.Contact.Unreachable.Seconds())
			}
		}},
		{"deputy_etcd_last_answer_timestamp_seconds", gauge, nil, "When etcd answered last.", func(a *answer, _ sdk.Instant, s *samples) {
			if a.Contact != nil && !a.Contact.Last.IsZero() {
				s.add(stamp(a.Contact.Last))
			}
		}},
	}
	slices.SortFunc(all, func(a, b metric) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return all
}

// counts adds a counter for each key.
func counts[K ~string](s *samples, counts map[K]uint64) {
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		s.add(float64(counts[k]), string(k))
	}
}

// roles are all that there are.
func roles() []sdk.Role {
	return []sdk.Role{
		sdk.RoleUnknown, sdk.RoleStandby, sdk.RoleCandidate, sdk.RolePromoting,
		sdk.RolePrimary, sdk.RoleDemoting, sdk.RoleBlocked, sdk.RoleFailed,
	}
}
