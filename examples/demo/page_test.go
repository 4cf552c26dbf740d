package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	browserlog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/control"
	status "github.com/deputy-ha/deputy/supervisor/http"
)

func TestMain(m *testing.M) {
	runAsPart() // nodes and members of etcd are this program too
	os.Exit(m.Run())
}

// The status page in a browser, of a node that sees the primary lost.
func TestPageShowsAFailover(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	if _, err := exec.LookPath("chromium"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs chromium")
		}
		t.Skip("needs chromium")
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 90*time.Second, errors.New("the browser or the lab takes too long"))
	defer cancel()
	l := openPageLab(ctx, t)
	before := l.records.now().primary
	lost := l.node(before.Node)
	watcher := lost.lab.nodes[(lost.index+1)%size]
	door := openPageDoor(t, filepath.Join(watcher.dir, "run", l.service()))

	browser, stop := chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox)...) // root has none
	defer stop()
	browser, end := chromedp.NewContext(browser)
	defer end()
	views := []*viewer{
		watch(t, browser, "wide and light", 1280, "light"),
		watch(t, browser, "phone and dark", 360, "dark"),
		watch(t, browser, "small and light", 320, "light"),
	}
	for _, v := range views {
		v.open(t, "http://"+door.address)
		v.await(t, "the primary is shown", fmt.Sprintf(`document.querySelector(".lead").innerText.includes("%s is primary") && document.title.startsWith("All is well")`, lost.name))
		v.check(t, "healthy")
		// What a person has done on the page stays.
		v.do(t, `document.querySelector("details.past").open = true; document.querySelector("details.past > summary").focus({preventScroll: true}); scrollTo(0, 120); window.sameDocument = true`)
	}

	if err := lost.lose(); err != nil {
		t.Fatal(err)
	}
	for _, v := range views {
		// On a busy machine it may have to be taken more than once.
		v.await(t, "the new primary is shown", fmt.Sprintf(`(lead => /n\d is primary/.test(lead) && !lead.includes("%s") && +lead.match(/term (\d+)/)[1] > %d)(document.querySelector(".lead").innerText)`, lost.name, before.Term))
		v.await(t, "the change is in the history", fmt.Sprintf(`[...document.querySelectorAll("#changes li, details.past li")].filter(e => e.innerText.includes("term %d") && e.innerText.includes("failover")).length == 1 + !!document.querySelector("#changes")`, before.Term+1))
		v.await(t, "it is said to who does not see it", fmt.Sprintf(`+(document.querySelector("#say").innerText.match(/binlog: n\d is primary, term (\d+)/) ?? [0, 0])[1] > %d`, before.Term))
		for what, is := range map[string]string{
			"it is the same document":      `window.sameDocument === true`,
			"the focus has stayed":         `document.activeElement === document.querySelector("details.past > summary")`,
			"what was unfolded still is":   `document.querySelector("details.past").open`,
			"the page is where it was":     `scrollY === 120`,
			"the lost node is shown so":    fmt.Sprintf(`[...document.querySelectorAll(".service tbody tr")].some(e => e.innerText.includes("%s") && /silent|not present|missing/.test(e.innerText))`, lost.name),
			"the lost node has no primary": fmt.Sprintf(`![...document.querySelectorAll(".service tbody tr")].some(e => e.innerText.includes("%s") && e.querySelector(".badge").innerText === "primary")`, lost.name),
		} {
			if !v.is(t, is) {
				t.Errorf("%s: not so: %s", v.name, what)
			}
		}
		v.check(t, "after")
	}

	v := views[0]
	door.close(t)
	v.await(t, "the page says that the server is away", `document.documentElement.classList.contains("lost") && /last seen \d+ s ago/.test(document.querySelector("#sight").innerText)`)
	v.shot(t, "lost")
	for _, v := range views {
		v.mayComplain() // that the server is away
	}
	door.open(t)
	v.await(t, "the page has the server again", `!document.documentElement.classList.contains("lost") && document.querySelector("#sight").innerText.startsWith("as of")`)

	// By the keyboard, as by what a hidden tab is told, it stops asking.
	for _, v := range views[1:] {
		v.close()
	}
	v.do(t, `document.querySelector("#hold").focus()`)
	v.press(t, " ")
	v.await(t, "the button offers to go on", `document.querySelector("#hold").innerText === "Update again"`)
	door.quiet(t, "it was stopped")
	v.press(t, " ")
	door.asked(t, "it goes on")
	v.do(t, `Object.defineProperty(document, "hidden", {get: () => window.away, configurable: true}); window.away = true; document.dispatchEvent(new Event("visibilitychange"))`)
	door.quiet(t, "nobody sees it")
	v.do(t, `window.away = false; document.dispatchEvent(new Event("visibilitychange"))`)
	door.asked(t, "somebody sees it again")

	// Without JavaScript it is all there, and comes anew by itself.
	if _, err := chromedp.Call(v.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	v.open(t, "http://"+door.address)
	text, err := chromedp.Run(v.ctx, chromedp.Text(chromedp.CSS("body")))
	if err != nil || !strings.Contains(text, "is primary") || !strings.Contains(text, "Reload") || strings.Contains(text, "Stop updates") {
		t.Errorf("without JavaScript: %v\n%s", err, text)
	}
}

// openPageLab starts the demo's lab, and returns when it has a primary.
func openPageLab(ctx context.Context, t *testing.T) *lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "demo") // short, for the sockets in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := openLab(ctx, options{dir: dir, bin: build(t), quick: true, log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
	for _, n := range l.nodes {
		if err := n.on(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.await(ctx, "the first primary answers", func() bool { return l.settled(1) }); err != nil {
		t.Fatalf("%v\n%s", err, l.logs())
	}
	return l
}

// A pageDoor serves a node's page, can be closed, and counts who asks.
type pageDoor struct {
	page    http.Handler
	address string
	server  *http.Server
	served  chan error
	count   atomic.Int32
}

func openPageDoor(t *testing.T, dir string) *pageDoor {
	d := &pageDoor{page: status.New(oneService{dir}, slog.New(slog.DiscardHandler)), address: "127.0.0.1:0"}
	d.open(t)
	t.Cleanup(func() { d.close(t) })
	return d
}

func (d *pageDoor) open(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", d.address)
	if err != nil {
		t.Fatal(err)
	}
	d.address, d.served = l.Addr().String(), make(chan error, 1)
	d.server = &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			d.count.Add(1)
		}
		d.page.ServeHTTP(w, r)
	})}
	go func() { d.served <- d.server.Serve(l) }() // joined by close
}

func (d *pageDoor) close(t *testing.T) {
	t.Helper()
	d.server.Close()
	if err := <-d.served; err != nil && !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	d.served <- nil // it can be closed again
}

// quiet fails the test if anybody asks though something.
func (d *pageDoor) quiet(t *testing.T, though string) {
	t.Helper()
	before := d.count.Load()
	time.Sleep(2500 * time.Millisecond) // more than two questions
	if n := d.count.Load() - before; n > 1 {
		t.Errorf("the page has asked %d times though %s", n, though)
	}
}

// asked returns when somebody has asked twice.
func (d *pageDoor) asked(t *testing.T, because string) {
	t.Helper()
	for before, until := d.count.Load(), time.Now().Add(20*time.Second); d.count.Load() < before+2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("the page does not ask though %s", because)
		}
	}
}

// oneService is a node with a single service, whose supervisor it asks.
type oneService struct{ dir string }

func (o oneService) Services() []string { return []string{filepath.Base(o.dir)} }

func (o oneService) Status(ctx context.Context, _ string) (supervisor.Status, sdk.Instant, error) {
	asked := sdk.Now()
	s, err := control.NewClient(o.dir).Status(ctx)
	return s, asked, err
}

func (o oneService) Report(ctx context.Context, service string) (supervisor.Report, error) {
	s, _, err := o.Status(ctx, service)
	return supervisor.NewReport(s.State, &s), err
}

func (o oneService) History(ctx context.Context, service string) ([]supervisor.Change, error) {
	return control.NewClient(o.dir).History(ctx, service)
}

func (o oneService) Figures(context.Context, string) (supervisor.Figures, error) {
	return supervisor.Figures{}, errors.New("nobody asks for figures")
}

func (o oneService) AllFigures(context.Context, string) ([]supervisor.Figures, error) {
	return nil, errors.New("nobody asks for figures")
}

// A viewer is a tab of a browser, of a width and a colour scheme.
type viewer struct {
	name   string
	width  int
	scheme string
	ctx    context.Context
	close  context.CancelFunc

	mu        sync.Mutex
	patient   bool // what is complained of is expected
	complains []string
}

func watch(t *testing.T, browser context.Context, name string, width int, scheme string) *viewer {
	t.Helper()
	v := &viewer{name: name, width: width, scheme: scheme}
	v.ctx, v.close = chromedp.NewContext(browser)
	t.Cleanup(v.close)
	// Whatever the console shows in red: exceptions, and what the policy forbids.
	if err := chromedp.Listen(v.ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			v.complain(fmt.Sprint(ev.ExceptionDetails.Text, " ", ev.ExceptionDetails.LineNumber))
		case *runtime.EventConsoleAPICalled:
			v.complain(fmt.Sprint("console.", ev.Type))
		case *browserlog.EventEntryAdded:
			v.complain(ev.Entry.Text)
		}
	}); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
	if _, err := chromedp.Call(v.ctx, emulation.SetEmulatedMedia, media); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(v.ctx, chromedp.EmulateViewport(int64(width), 640)); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *viewer) complain(what string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.patient {
		v.complains = append(v.complains, what)
	}
}

func (v *viewer) mayComplain() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.patient = true
}

func (v *viewer) open(t *testing.T, url string) {
	t.Helper()
	if err := chromedp.Do(v.ctx, chromedp.Navigate(url)); err != nil {
		t.Fatalf("%s: open %s: %v", v.name, url, err)
	}
}

func (v *viewer) do(t *testing.T, script string) {
	t.Helper()
	if err := chromedp.Do(v.ctx, chromedp.Steps(func(ctx context.Context, tab *chromedp.Target) (chromedp.Void, error) {
		_, err := chromedp.Evaluate[any]("(() => {"+script+"; return 1})()")(ctx, tab)
		return chromedp.Void{}, err
	})); err != nil {
		t.Fatalf("%s: %s: %v", v.name, script, err)
	}
}

func (v *viewer) is(t *testing.T, expression string) bool {
	t.Helper()
	yes, err := chromedp.Run(v.ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
	if err != nil {
		t.Fatalf("%s: %s: %v", v.name, expression, err)
	}
	return yes
}

func (v *viewer) press(t *testing.T, key string) {
	t.Helper()
	if err := chromedp.Do(v.ctx, chromedp.KeyEvent(key)); err != nil {
		t.Fatalf("%s: press %q: %v", v.name, key, err)
	}
}

// await returns when something is true of the page.
func (v *viewer) await(t *testing.T, what, expression string) {
	t.Helper()
	if _, err := chromedp.Run(v.ctx, chromedp.Poll[bool]("!!("+expression+")", chromedp.WithPollingInterval(50*time.Millisecond))); err != nil {
		text, _ := chromedp.Run(v.ctx, chromedp.Evaluate[string]("document.body.innerText"))
		t.Fatalf("%s: wait until %s: %v\n%s", v.name, what, err, text)
	}
}

// tooFaint finds texts that have less contrast to their ground than WCAG 2.2
// asks for at level AA, 4.5 : 1.
const tooFaint = `(() => {
	const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
	const rgba = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data };
	const light = (c) => [...rgba(c)].slice(0, 3).map(x => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4).reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
	const ground = (e) => { while (e && rgba(getComputedStyle(e).backgroundColor)[3] < 255) e = e.parentElement; return getComputedStyle(e).backgroundColor };
	const found = [];
	let n = 0;
	for (const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); walk.nextNode();) {
		const e = walk.currentNode.parentElement;
		if (!walk.currentNode.data.trim() || !e.checkVisibility() || e.closest("noscript")) continue;
		const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((a, b) => b - a);
		n++;
		if ((a + 0.05) / (b + 0.05) < 4.5) found.push(e.outerHTML);
	}
	return n < 20 ? "only " + n + " texts" : found.join("\n");
})()`

// check looks at what holds of the page at any time.
func (v *viewer) check(t *testing.T, when string) {
	t.Helper()
	if wide, err := chromedp.Run(v.ctx, chromedp.Evaluate[int](`document.documentElement.scrollWidth`)); err != nil || wide > v.width {
		t.Errorf("%s, %s: the page is %d wide, %v", v.name, when, wide, err)
	}
	if found, err := chromedp.Run(v.ctx, chromedp.Evaluate[string](tooFaint)); err != nil || found != "" {
		t.Errorf("%s, %s: too faint: %v\n%s", v.name, when, err, found)
	}
	if dark := v.is(t, `getComputedStyle(document.body).backgroundColor === "rgb(15, 19, 24)"`); dark != (v.scheme == "dark") {
		t.Errorf("%s, %s: dark: %t", v.name, when, dark)
	}
	v.judgeTree(t, when)
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.complains) > 0 {
		t.Errorf("%s, %s: the console has %q", v.name, when, v.complains)
	}
	v.shot(t, when)
}

// judgeTree looks at the page as a screen reader has it.
func (v *viewer) judgeTree(t *testing.T, when string) {
	t.Helper()
	tree, err := chromedp.Call(v.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, n := range tree.Nodes {
		if n.Ignored || n.Role == nil {
			continue
		}
		role, name := text(n.Role), text(n.Name)
		seen[role]++
		switch role {
		case "table", "button", "link", "heading", "region", "DisclosureTriangle":
			if name == "" {
				t.Errorf("%s, %s: a %s has no name", v.name, when, role)
			}
		}
	}
	for role, want := range map[string]int{"banner": 1, "main": 1, "contentinfo": 1, "status": 1, "table": 2, "button": 1, "columnheader": 13, "rowheader": 6} {
		if seen[role] < want {
			t.Errorf("%s, %s: a screen reader finds %d of %q, want %d: %v", v.name, when, seen[role], role, want, seen)
		}
	}
}

func text(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	return string(bytes.Trim(v.Value, `"`))
}

// shot keeps a picture where PAGE_SHOTS says, for people to look at.
func (v *viewer) shot(t *testing.T, when string) {
	t.Helper()
	dir := os.Getenv("PAGE_SHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(v.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, strings.ReplaceAll(v.name, " ", "-")+"-"+when+".png"), png, 0o600)
	}
	if err != nil {
		t.Error(err)
	}
}
