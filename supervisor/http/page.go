package http

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// pageFiles are the page and what it loads. There is no build step: what lies
// there is what is served.
//
//go:embed page
var pageFiles embed.FS

// pagePolicy lets the page load its own files and ask this server again, and
// nothing else: whatever got into its text could do nothing.
const pagePolicy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// An asset is a file that the page loads. Its name has a hash of what is in it,
// so that a browser asks for it once.
type asset struct {
	path string // below the page, so that it works behind a proxy too
	kind string
	text []byte
}

// page serves the status page: at / the page, and below /page/ what it loads.
// It only reads, works without JavaScript, and with it asks for / every second
// and shows in place what has changed.
func page(n Node) http.Handler {
	style, script, icon := newAsset("page.css", "text/css"), newAsset("page.js", "text/javascript"), newAsset("icon.svg", "image/svg+xml")
	t := template.Must(template.New("page.html").Funcs(template.FuncMap{
		"age":    supervisor.Age,
		"short":  supervisor.Short,
		"stamp":  func(t time.Time) string { return t.Format(time.RFC3339) },
		"clock":  clock,
		"pieces": pieces,
		"style":  func() string { return style.path },
		"script": func() string { return script.path },
		"icon":   func() string { return icon.path },
	}).ParseFS(pageFiles, "page/page.html"))
	look := &lookout{node: n}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		if err := t.Execute(&b, look.view(r.Context())); err != nil {
			http.Error(w, "show the page: "+err.Error(), http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("Referrer-Policy", "no-referrer")
		send(w, r, "text/html", b.Bytes())
	})
	for _, a := range []asset{style, script, icon} {
		mux.HandleFunc("GET /"+a.path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
			send(w, r, a.kind, a.text)
		})
	}
	return mux
}

func newAsset(name, kind string) asset {
	text, err := pageFiles.ReadFile("page/" + name)
	if err != nil {
		panic(err) // it is embedded
	}
	sum := sha256.Sum256(text)
	base, ext, _ := strings.Cut(name, ".")
	return asset{fmt.Sprintf("page/%s-%s.%s", base, base64.RawURLEncoding.EncodeToString(sum[:9]), ext), kind, text}
}

// send answers with a text, compressed where that is understood.
func send(w http.ResponseWriter, r *http.Request, kind string, text []byte) {
	h := w.Header()
	h.Set("Content-Type", kind+"; charset=utf-8")
	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(text) //nolint:errcheck // a buffer takes all
		z.Close()
		h.Set("Content-Encoding", "gzip")
		text = b.Bytes()
	}
	h.Set("Content-Length", fmt.Sprint(len(text)))
	_, _ = w.Write(text) // whoever does not read the answer has gone
}

// clock is a time as a clock on the wall here shows it, with its day unless that
// is today.
func clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format("2 Jan 15:04")
}

// A piece is a part of a sentence; a command to type stands out.
type piece struct {
	Text    string
	Command bool
}

// pieces takes a sentence apart at its backticks, which enclose commands.
func pieces(sentence string) (all []piece) {
	parts := strings.Split(sentence, "`")
	for i, text := range parts {
		if i%2 == 1 && i == len(parts)-1 {
			text = "`" + text // it is not closed: no command
			all = append(all, piece{Text: text})
		} else if text != "" {
			all = append(all, piece{text, i%2 == 1})
		}
	}
	return all
}
