package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/config"
	"github.com/deputy-ha/deputy/supervisor/notify"
	"github.com/deputy-ha/deputy/supervisor/plugin"
)

// notify tells people of what happens to the seats, until keeping ends; at once
// when ctx ends for the roles to be kept, as they then wait for the next process.
func (e *engine) notify(ctx, keeping context.Context) {
	if len(e.node.Notify) == 0 {
		return
	}
	telling, hush := context.WithCancelCause(keeping)
	defer hush(errEnded)
	defer context.AfterFunc(ctx, func() {
		if cause := context.Cause(ctx); errors.Is(cause, supervisor.ErrRestart) {
			hush(cause)
		}
	})()
	lanes := notify.NewLanes()
	var running sync.WaitGroup
	for _, t := range e.seats {
		s := notify.Service{
			Name: t.name, Node: e.node.Name, Member: t.member, Ledger: e.records,
			Receivers: receivers(e.node, t.log), Lanes: lanes, Log: t.log,
		}
		running.Go(func() { s.Run(telling) })
	}
	running.Wait()
}

// receivers are those whom this node's settings name.
func receivers(node config.Node, log *slog.Logger) []notify.Receiver {
	var all []notify.Receiver
	for _, n := range node.Notify {
		r := notify.Receiver{Name: n.Name, Timeout: n.Timeout, Wants: n.Wants}
		if n.Exec != nil {
			r.Send = byScript(n, log.With("notify", n.Name))
		} else {
			r.Send = byWebhook(node, n).Send
		}
		all = append(all, r)
	}
	return all
}

func byScript(n config.Notify, log *slog.Logger) func(context.Context, notify.Message) error {
	return func(ctx context.Context, m notify.Message) error {
		in, err := m.Input()
		if err != nil {
			return err
		}
		err = plugin.Script{Argv: n.Exec, Env: m.Env(), In: in, UID: os.Geteuid(), Log: log}.Run(ctx)
		if errors.Is(err, plugin.ErrScriptRefused) {
			err = mark(err, notify.ErrRefused)
		}
		if err != nil {
			return fmt.Errorf("run %s: %w", n.Exec[0], err)
		}
		return nil
	}
}

func byWebhook(node config.Node, n config.Notify) notify.Webhook {
	return notify.Webhook{
		Address: func() (string, error) {
			address, err := node.Read(n.Webhook)
			if err == nil && !config.IsAddress(address) {
				err = fmt.Errorf("%s holds no address of a webhook", n.Webhook.Secret)
			}
			return address, err
		},
		Headers: func() (http.Header, error) {
			headers := http.Header{}
			for key, text := range n.Headers {
				value, err := node.Read(text)
				if err != nil {
					return nil, fmt.Errorf("read the header %s: %w", key, err)
				}
				headers.Set(key, value)
			}
			return headers, nil
		},
		CAFile: n.CAFile,
		Agent:  "deputy/" + versionOf().Version,
	}
}

// verify tells why a receiver could not be told, as far as that can be seen
// without telling it anything.
func verify(ctx context.Context, node config.Node, n config.Notify) error {
	var err error
	if n.Exec != nil {
		err = plugin.Script{Argv: n.Exec, UID: os.Geteuid()}.Verify(ctx)
	} else {
		err = byWebhook(node, n).Verify(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s: notify %s: %w", node.File, n.Name, err)
	}
	return nil
}

func (a *app) notifyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "notify",
		Short: "Try who is told of events",
		Long: "Try who is told of events: the programs and webhooks of each [[notify]] in deputy.toml,\n" +
			"see deputy.toml(5).",
		Args: unknownCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.notifyTestCommand())
	return c
}

// A tried is what `deputy notify test -o json` prints of each receiver.
type tried struct {
	Name  string        `json:"name"`
	Dur   time.Duration `json:"dur_ns"`
	Error string        `json:"error,omitempty"` // why it was not told
}

func (a *app) notifyTestCommand() *cobra.Command {
	return a.prints(&cobra.Command{
		Use:   "test [NAME...]",
		Short: "Send a test message to the named receivers, or to all",
		Long: "Send a test message to the named receivers of deputy.toml, or to all, from this node,\n" +
			"once, and print what came of it. Each message has an ID of its own, so that no receiver\n" +
			"takes it for one that it had before. Fails when any of them was not told.",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			node, _ := a.settings()
			var names []string
			for _, n := range node.Notify {
				if !slices.Contains(args, n.Name) {
					names = append(names, n.Name)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, names []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			return a.notifyTest(ctx, names)
		},
	})
}

func (a *app) notifyTest(ctx context.Context, names []string) error {
	node, err := a.settings()
	if err != nil {
		return err
	}
	if len(node.Notify) == 0 {
		return mark(fmt.Errorf("nobody to tell: %s has no [[notify]]", node.File), errConfig)
	}
	all := receivers(node, slog.New(slog.DiscardHandler))
	for _, name := range names {
		if !slices.ContainsFunc(all, func(r notify.Receiver) bool { return r.Name == name }) {
			var known []string
			for _, r := range all {
				known = append(known, r.Name)
			}
			return mark(fmt.Errorf("%s has no [[notify]] of the name %q; there is %s", node.File, name, strings.Join(known, ", ")), errUsage)
		}
	}
	results, wrong := []tried{}, 0
	for _, r := range all {
		if len(names) > 0 && !slices.Contains(names, r.Name) {
			continue
		}
		began := time.Now()
		bounded, cancel := context.WithTimeoutCause(ctx, r.Timeout, fmt.Errorf("not done within %s", r.Timeout))
		err := r.Send(bounded, notify.Message{Event: supervisor.TestEvent(node.Name, began), Sender: node.Name})
		cancel()
		t := tried{Name: r.Name, Dur: time.Since(began)}
		if err != nil {
			t.Error = err.Error()
			wrong++
		}
		results = append(results, t)
	}
	if a.json() {
		err = a.printJSON(results)
	} else {
		t := table{head: []string{"RECEIVER", "TOOK", "RESULT"}}
		for _, r := range results {
			result := cell{"told", good}
			if r.Error != "" {
				result = cell{r.Error, bad}
			}
			t.add(cell{r.Name, plain}, cell{short(r.Dur), plain}, result)
		}
		var b strings.Builder
		t.write(&b, a.screen, "")
		fmt.Fprint(a.stdout, b.String())
	}
	if err == nil && wrong > 0 {
		err = fmt.Errorf("%d of %d receivers not told", wrong, len(results))
	}
	return err
}
