package etcd

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

func notice(id, to string) supervisor.Notice {
	return supervisor.Notice{Event: supervisor.Event{Service: "db", ID: id}, Receiver: to}
}

func testNotices(t *testing.T, c *etcdtest.Cluster) {
	ctx, a, b := t.Context(), realClient(t, c, "a"), realClient(t, c, "b")
	n := notice("db/7/primary", "pager")

	// Of all who want it at once one gets it.
	var won atomic.Int32
	var all sync.WaitGroup
	tokens := make(chan string, 10)
	for range 10 {
		all.Go(func() {
			switch token, err := a.Claim(ctx, n, time.Minute); {
			case err == nil:
				won.Add(1)
				tokens <- token
			case !errors.Is(err, supervisor.ErrBusy):
				t.Errorf("claim at the same time: %v", err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d have claimed it", won.Load())
	}
	token := <-tokens
	if _, err := b.Claim(ctx, n, time.Minute); !errors.Is(err, supervisor.ErrBusy) || err.Error() != "claim the notice db/7/primary for pager: a delivers it" {
		t.Errorf("claim of what is claimed: %v", err)
	}
	if _, err := b.Claim(ctx, notice("db/7/primary", "mail"), time.Minute); err != nil {
		t.Errorf("claim for another receiver: %v", err)
	}

	// What another claimed is not released, what was released can be claimed.
	if err := b.Release(ctx, n, "other"); err != nil {
		t.Error(err)
	}
	if _, err := b.Claim(ctx, n, time.Minute); !errors.Is(err, supervisor.ErrBusy) {
		t.Errorf("claim after another's release: %v", err)
	}
	if err := a.Release(ctx, n, token); err != nil {
		t.Error(err)
	}
	// A claim ends by itself, as when its holder has died.
	began := time.Now()
	if _, err := b.Claim(ctx, n, time.Second); err != nil {
		t.Fatalf("claim of what was released: %v", err)
	}
	for {
		if _, err := a.Claim(ctx, n, time.Minute); err == nil {
			break
		} else if !errors.Is(err, supervisor.ErrBusy) || time.Since(began) > 20*time.Second {
			t.Fatalf("claim of what a dead process has claimed, after %v: %v", time.Since(began), err)
		}
		time.Sleep(50 * time.Millisecond)
	}

	// What is told stays told, also once the claim's time is over.
	if err := a.Told(ctx, n); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Claim(ctx, n, time.Minute); !errors.Is(err, supervisor.ErrTold) {
		t.Errorf("claim of what was told: %v", err)
	}

	// Notices make no service of what is none, and no news of what is claimed.
	news, err := b.News(ctx, "db")
	if err != nil || len(news.Changes) != 0 || !slices.Equal(news.Told, []string{"db/7/primary"}) {
		t.Errorf("news: %+v, %v", news, err)
	}
	if got, err := b.Services(ctx); err != nil || len(got) != 0 {
		t.Errorf("services: %q, %v", got, err)
	}
	if _, err := b.State(ctx, "db"); !errors.Is(err, supervisor.ErrNoService) {
		t.Errorf("state: %v", err)
	}

	// News are the newest changes; of the notices only so many stay.
	node := startReal(t, c, "c")
	e := node.Elector("db", time.Second)
	var taken []sdk.Term // on a busy machine some are taken and lost at once
	for range 7 {
		l := takeReal(t, node, "db", time.Second)
		taken = append(taken, l.Term())
		if err := e.Record(ctx, supervisor.Change{Term: l.Term(), Node: "c"}); err != nil {
			t.Fatal(err)
		}
		if err := l.Resign(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if news, err = b.News(ctx, "db"); err != nil {
		t.Fatal(err)
	}
	last := taken[len(taken)-1]
	var want, terms []sdk.Term
	for _, term := range taken {
		if term+newsTerms > last {
			want = append(want, term)
		}
	}
	for _, change := range news.Changes {
		terms = append(terms, change.Term)
	}
	if diff := cmp.Diff(want, terms); diff != "" {
		t.Error(diff)
	}
	for from := 0; from < keptNotices; from += maxOps {
		var many txn
		for i := range maxOps {
			many.Then = append(many.Then, put(a.keys.notice(notice(fmt.Sprintf("db/%d/primary", 100+from+i), "pager")), encode(noticeRecord{Told: true})))
		}
		if _, err := a.txn(ctx, many); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Told(ctx, notice("db/9999/primary", "pager")); err != nil {
		t.Fatal(err)
	}
	news, err = b.News(ctx, "db")
	if err != nil || len(news.Told) != keptNotices || slices.Contains(news.Told, "db/7/primary") || !slices.Contains(news.Told, "db/9999/primary") {
		t.Errorf("%d are kept, want %d, without the oldest: %v", len(news.Told), keptNotices, err)
	}
}
