package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"mediafs/blobstore/transfer"
)

// How often it is said how far a transfer has come.
const (
	barEvery  = 200 * time.Millisecond
	lineEvery = 5 * time.Second
)

// A transferPrinter says how far an import, an export or a migration has come: a bar on a terminal, else a line now and then, both on stderr; with --json
// objects, all on stdout. What was not copied it says at once, on stdout, as its report at the end.
type transferPrinter struct {
	progress transfer.Progress

	out, err io.Writer
	json     bool
	bar      *progressbar.ProgressBar // nil: stderr is no terminal, or it is --json
	began    time.Time

	mu      sync.Mutex // guards the rest, and what is printed
	which   string     // of several drives
	skipped int64
	failed  error // the first, in printing
}

func newTransferPrinter(c *cli.Context) *transferPrinter {
	p := &transferPrinter{out: c.App.Writer, err: c.App.ErrWriter, json: c.Bool("json"), began: time.Now()}
	if !p.json && isTerminal(c.App.ErrWriter) {
		p.bar = progressbar.NewOptions64(1,
			progressbar.OptionSetWriter(c.App.ErrWriter),
			progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true), progressbar.OptionShowTotalBytes(true),
			progressbar.OptionSetPredictTime(true), progressbar.OptionSetElapsedTime(false),
			progressbar.OptionThrottle(barEvery), progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish())
	}
	return p
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// during does something and says meanwhile how far it has come.
func (p *transferPrinter) during(do func() error) error {
	every := lineEvery
	if p.bar != nil {
		every = barEvery
	}
	end := make(chan struct{})
	var saying sync.WaitGroup
	saying.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-end:
				return
			case <-ticker.C:
				p.say()
			}
		}
	})
	err := do()
	close(end)
	saying.Wait()
	if p.bar != nil {
		_ = p.bar.Clear() // there is nobody to tell
	}
	return err
}

// drive says which of several drives it is about from now on.
func (p *transferPrinter) drive(i, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.which = fmt.Sprintf("drive %d of %d: ", i+1, n)
}

// say says how far it has come.
func (p *transferPrinter) say() {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := &p.progress
	files, bytes := g.Files.Load(), g.Bytes.Load()
	foundFiles, foundBytes := max(g.FoundFiles.Load(), files), max(g.FoundBytes.Load(), bytes)
	rate := float64(bytes) / max(time.Since(p.began).Seconds(), 0.001)
	left := time.Duration(-1)
	if rate > 0 && g.Counting.Load() == 0 {
		left = time.Duration(float64(foundBytes-bytes) / rate * float64(time.Second)).Round(time.Second)
	}
	switch {
	case p.json:
		o := struct {
			Event       string `json:"event"`
			Files       int64  `json:"files"`
			Bytes       int64  `json:"bytes"`
			FoundFiles  int64  `json:"found_files"`
			FoundBytes  int64  `json:"found_bytes"`
			Rate        int64  `json:"bytes_per_second"`
			SecondsLeft *int64 `json:"seconds_left"` // null: not known yet
		}{"progress", files, bytes, foundFiles, foundBytes, int64(rate), nil}
		if left >= 0 {
			seconds := int64(left.Seconds())
			o.SecondsLeft = &seconds
		}
		p.object(o)
	case p.bar != nil:
		p.bar.Describe(fmt.Sprintf("%s%s of %s", p.which, formatCount(files), plural(foundFiles, "file")))
		p.bar.ChangeMax64(foundBytes + 1) // it is not at its end before all is over
		_ = p.bar.Set64(bytes)            // there is nobody to tell
	default:
		line := fmt.Sprintf("%s%s of %s, %s of %s, %s/s", p.which, formatCount(files), plural(foundFiles, "file"),
			formatBytes(bytes), formatBytes(foundBytes), formatBytes(int64(rate)))
		if left >= 0 {
			line += fmt.Sprintf(", %v left", left)
		}
		_, _ = fmt.Fprintln(p.err, line)
	}
}

// problem prints what was not copied, and why.
func (p *transferPrinter) problem(problem transfer.Problem) {
	if problem.Path == "" {
		problem.Path = "/"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.skipped++
	if p.json {
		o := struct {
			Event  string `json:"event"`
			Path   string `json:"path,omitempty"`
			Quoted string `json:"path_quoted,omitempty"` // a name that is not UTF-8
			Why    string `json:"why"`
		}{Event: "skipped", Path: problem.Path, Why: reason(problem.Why)}
		if !utf8.ValidString(o.Path) {
			o.Path, o.Quoted = "", strconv.Quote(o.Path)
		}
		p.object(o)
		return
	}
	if p.bar != nil {
		_ = p.bar.Clear() // there is nobody to tell
	}
	p.line("skipped: " + shownPath(problem.Path) + ": " + oneLine(reason(problem.Why)))
}

// operation is what drives write before the reason of an error: the operation, and the number of the node.
var operation = regexp.MustCompile(`\b(dirstore|pgstore): [a-z ]+( [0-9]+)?: `)

// reason is an error in the words that a user knows.
func reason(err error) string { return operation.ReplaceAllString(err.Error(), "") }

// report prints what was done, and gives the first error in printing.
func (p *transferPrinter) report(ended bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := &p.progress
	if p.json {
		p.object(struct {
			Event   string  `json:"event"`
			Ended   bool    `json:"ended"` // it has come to its end
			Copied  int64   `json:"copied"`
			Bytes   int64   `json:"bytes"`
			Present int64   `json:"present"`
			Folders int64   `json:"folders"`
			Links   int64   `json:"links"`
			Others  int64   `json:"others"`
			Removed int64   `json:"removed"`
			Skipped int64   `json:"skipped"`
			Seconds float64 `json:"seconds"`
		}{
			"end", ended, g.Copied.Load(), g.CopiedBytes.Load(), g.Present.Load(), g.Folders.Load(), g.Links.Load(), g.Others.Load(),
			g.Removed.Load(), p.skipped, time.Since(p.began).Seconds(),
		})
		return p.failed
	}
	parts := []string{fmt.Sprintf("copied and verified %s (%s)", plural(g.Copied.Load(), "file"), formatBytes(g.CopiedBytes.Load()))}
	for _, count := range []struct {
		n    int64
		what string
	}{{g.Folders.Load(), "folder"}, {g.Links.Load(), "hard link"}, {g.Others.Load(), "other node"}} {
		if count.n > 0 {
			parts = append(parts, plural(count.n, count.what))
		}
	}
	line := strings.Join(parts, ", ")
	if n := g.Present.Load(); n > 0 {
		line += "; there already: " + plural(n, "file")
	}
	if n := g.Removed.Load(); n > 0 {
		line += "; removed from the source: " + plural(n, "file")
	}
	if n := p.skipped; n > 0 {
		line += "; skipped: " + formatCount(n)
	} else if ended {
		line += "; nothing skipped"
	}
	p.line(line)
	return p.failed
}

func (p *transferPrinter) line(line string) {
	if p.failed == nil {
		_, p.failed = fmt.Fprintln(p.out, line)
	}
}

func (p *transferPrinter) object(v any) {
	if p.failed == nil {
		encoder := json.NewEncoder(p.out)
		encoder.SetEscapeHTML(false)
		p.failed = encoder.Encode(v)
	}
}
