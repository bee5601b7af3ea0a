package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mediafs/blobstore/pgstore/pgtest"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == loopbackCommand { // the loopback is served by the same program
		exit(serveLoopback(os.Args[2], os.Args[3]))
	}
	pgtest.Main(m)
}

// TestEverythingIsMeasured does all that the program does, with little data.
func TestEverythingIsMeasured(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI has to be root")
		}
		t.Skip("only root may drop caches")
	}
	pgtest.New(t) // skips where there is no Postgres
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	peer := filepath.Join(dir, "peer")
	p := &plan{
		program: filepath.Join(dir, "mediafs"), runs: 2, scale: 200, steps: regexp.MustCompile(""), targets: targetNames, dir: dir,
		peers: []string{"juicefs=" + peer},
	}
	if err := os.Mkdir(peer, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", p.program, "mediafs/cmd/mediafs").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, mode := range []struct {
		name string
		do   func(context.Context, *plan, *bytes.Buffer) error
		want []string // begins of lines
	}{
		{"table", func(ctx context.Context, p *plan, out *bytes.Buffer) error { return p.table(ctx, out) }, nil},
		{"clients", func(ctx context.Context, p *plan, out *bytes.Buffer) error {
			p.targets = []string{"folders", "postgres"}
			return p.clients(ctx, out)
		}, []string{"| folders | create a small file |", "| postgres | read 8 MB |"}},
		{"cpu", func(ctx context.Context, p *plan, out *bytes.Buffer) error { return p.cpu(ctx, out) }, []string{"| rm -rf | postgres |"}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			own := *p
			own.dir = filepath.Join(dir, mode.name)
			if err := os.Mkdir(own.dir, 0o755); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := mode.do(t.Context(), &own, &out); err != nil {
				t.Fatal(err)
			}
			want := mode.want
			if mode.name == "table" {
				for _, s := range steps {
					want = append(want, "| "+s.name+" | "+s.unit+" |", "| "+s.name+" | postgres | juicefs |")
				}
			}
			for _, line := range want {
				if !strings.Contains("\n"+out.String(), "\n"+line) {
					t.Errorf("no line begins %q in\n%s", line, &out)
				}
			}
		})
	}
}
