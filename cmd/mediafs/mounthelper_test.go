package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/auth"
)

func TestAHelpersCallBecomesTheCommandMount(t *testing.T) {
	isolate(t)
	mount := func(store string, more ...string) []string {
		return append([]string{"mediafs", "mount", "--daemon", "--store", store}, more...)
	}
	const token = "--token-file"
	for _, c := range []struct {
		line string
		want []string
	}{
		{"/srv/media /mnt -o token_file=/t", mount("/srv/media", token, "/t", "--", "/mnt")},
		{"/srv/media /mnt -otoken_file=/t", mount("/srv/media", token, "/t", "--", "/mnt")},
		{"-o token_file=/t /srv/media /mnt", mount("/srv/media", token, "/t", "--", "/mnt")},
		{"file:///srv/media /mnt -sfnv -t mediafs -o rw,token_file=/t", mount("file:///srv/media", token, "/t", "--", "/mnt")},
		{"/srv/media /mnt -svo token_file=/t", mount("/srv/media", token, "/t", "--", "/mnt")},
		{"postgres://app@localhost/media /mnt -o ro,nosuid,nodev,token_file=/t", mount("postgres://app@localhost/media", token, "/t", "--read-only", "--", "/mnt")},
		{"/s /mnt -o ro,token_file=/t -o rw", mount("/s", token, "/t", "--", "/mnt")},
		{"/s /mnt -o token_file=/t,auth=https://app.example.org", mount("/s", token, "/t", "--auth", "https://app.example.org", "--", "/mnt")},
		{"/s /mnt -o token_file=/t,timeout=2m,log_level=debug,allow_other", mount("/s", token, "/t", "--timeout", "2m", "--log-level", "debug", "--allow-other", "--", "/mnt")},
		{"/s /mnt -o token_file=/t,pending=1G,read_ahead=64M,requests=128M,connections=16,open_drives=8",
			mount("/s", token, "/t", "--pending", "1G", "--read-ahead", "64M", "--requests", "128M", "--connections", "16", "--open-drives", "8", "--", "/mnt")},
		{"/s /mnt -o token_file=/t,metrics=[::1]:9900", mount("/s", token, "/t", "--metrics", "[::1]:9900", "--", "/mnt")},
		{"/s /mnt -o token_file=/t,metrics=unix:/run/m.sock", mount("/s", token, "/t", "--metrics", "unix:/run/m.sock", "--", "/mnt")},
		{"/s /mnt -o token_file=/a=b", mount("/s", token, "/a=b", "--", "/mnt")},
		// What mount(8) passes for `defaults`, `user,exec` and so on.
		{"/s /mnt -o rw,nosuid,nodev,token_file=/t,user,_netdev,nofail,exec", mount("/s", token, "/t", "--", "/mnt")},
		{"/s /mnt -o defaults,auto,noauto,users,user=anna,nouser,owner,group,relatime,noatime,lazytime,async,comment=x,x-systemd.automount,X-mount.mkdir,,token_file=/t", mount("/s", token, "/t", "--", "/mnt")},
		{"/s /mnt -s -o whatever,token_file=/t", mount("/s", token, "/t", "--", "/mnt")},
	} {
		call, err := parseHelperCall(strings.Fields(c.line))
		if err != nil {
			t.Errorf("%s: got %v", c.line, err)
			continue
		}
		got, noexec, err := call.command()
		if err != nil || noexec || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, %v, %v, want %q", c.line, got, noexec, err, c.want)
		}
	}
}

func TestTheLastOfExecAndNoexecCounts(t *testing.T) {
	isolate(t)
	for options, want := range map[string]bool{"noexec": true, "exec": false, "noexec,exec": false, "exec,noexec": true, "rw": false} {
		call := helperCall{source: "/s", dir: "/mnt", options: append(strings.Split(options, ","), "token_file=/t")}
		_, got, err := call.command()
		if want && os.Geteuid() != 0 {
			if err == nil || !strings.Contains(err.Error(), "write exec after user") {
				t.Errorf("%s: got %v, want the way out", options, err)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", options, got, err, want)
		}
	}
}

func TestTheTokenOfTheEnvironmentServesTheHelperToo(t *testing.T) {
	isolate(t)
	t.Setenv(tokenVariable, auth.NewToken().Reveal())
	got, _, err := helperCall{source: "/s", dir: "/mnt"}.command()
	if want := []string{"mediafs", "mount", "--daemon", "--store", "/s", "--", "/mnt"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// helper calls the program as mount(8) does.
func helper(t *testing.T, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(append([]string{"/sbin/" + helperName}, args...), &stdout, &stderr)
	return outcome{code, stdout.String(), stderr.String()}
}

func TestAHelpersCallThatCannotBeUnderstoodIsExitCode1(t *testing.T) {
	isolate(t)
	for _, c := range []struct{ line, want string }{
		{"", "0 arguments, not 2"},
		{"/s", "1 arguments, not 2"},
		{"/s /mnt /x", "3 arguments, not 2"},
		{"/s /mnt -o", "-o lacks its value"},
		{"/s /mnt -x", "no flag -x"},
		{"/s /mnt --help", "no flag --"},
		{"/s /mnt -N /proc/1/ns/mnt", "nsenter --mount"},
		{"/s /mnt -t ext4", `no type "ext4"`},
		{"/s /mnt", "token_file=FILE"},
		{"/s /mnt -o ro", "token_file=FILE"},
		{"/s /mnt -o token_file", "absolute path"},
		{"/s /mnt -o token_file=anna.token", `"token_file=anna.token": write the file's absolute path`},
		{"/s /mnt -o token_file=/t,timeout=30", `"timeout=30": write a duration`},
		{"/s /mnt -o token_file=/t,timeout=-1s", "write a duration"},
		{"/s /mnt -o token_file=/t,timeout", "write a duration"},
		{"/s /mnt -o token_file=/t,log_level=loud", "the levels are"},
		{"/s /mnt -o token_file=/t,auth", "the application's address"},
		{"/s /mnt -o token_file=/t,metrics", "the port is missing"},
		{"/s /mnt -o token_file=/t,metrics=0.0.0.0:9900", "other machines"},
		{"/s /mnt -o token_file=/t,metrics=unix:m.sock", "absolute path"},
		{"/s /mnt -o token_file=/t,suid", `"suid": is not known`},
		{"/s /mnt -o token_file=/t,remount,ro", `"remount": is not known`},
		{"/s /mnt -o token_file=/t,uid=1000", `"uid=1000": is not known`},
		{"ftp://h/x /mnt -o token_file=/t", "ftp"},
	} {
		wantError(t, helper(t, strings.Fields(c.line)...), helperUsage, c.want)
	}
}

func TestAHelpersFakeMountsNothing(t *testing.T) {
	isolate(t)
	missing := filepath.Join(t.TempDir(), "missing")
	if got := helper(t, missing, missing, "-fv", "-o", "token_file="+missing); got != (outcome{}) {
		t.Errorf("got %+v, want silence", got)
	}
}

func TestAHelpersFailureIsExitCode32(t *testing.T) {
	isolate(t)
	store := newStore(t)
	token := newUser(t, store, "anna")
	missing := filepath.Join(t.TempDir(), "missing")
	wantError(t, helper(t, missing, t.TempDir(), "-o", "token_file="+token), helperFailed, missing, "mediafs init")
	wantError(t, helper(t, store, missing, "-o", "token_file="+token), helperFailed, missing, "mkdir")
	wantError(t, helper(t, store, t.TempDir(), "-o", "token_file="+missing), helperFailed, missing)
}

func TestTheHelperMountsInTheBackground(t *testing.T) {
	if err := mounterError(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	isolate(t)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // of the daemon; the race detector lets a process wait a second otherwise
	store := newStore(t)
	root := os.Geteuid() == 0
	for _, c := range []struct {
		options string
		flags   int64 // of statfs(2)
		root    bool  // only root can
	}{
		{options: "rw,nosuid,nodev,user,exec", flags: unix.ST_NOSUID | unix.ST_NODEV},
		{options: "ro,relatime", flags: unix.ST_NOSUID | unix.ST_NODEV | unix.ST_RDONLY},
		{options: "rw,noexec,nosuid,nodev,user", flags: unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC, root: true},
		{options: "ro,noexec", flags: unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC | unix.ST_RDONLY, root: true},
	} {
		if c.root && !root {
			continue
		}
		t.Run(strings.ReplaceAll(c.options, ",", "+"), func(t *testing.T) {
			token := newUser(t, store, "anna")
			defer mediafs(t, "user", "remove", "--store", store, "anna")
			mountpoint := t.TempDir()
			got := helper(t, store, mountpoint, "-v", "-o", c.options+",token_file="+token)
			if got.code != exitOK {
				t.Fatal(got.stderr)
			}
			defer func() {
				if got := mediafs(t, "umount", mountpoint); got != (outcome{}) {
					t.Errorf("umount: got %+v, want silence", got)
				}
			}()
			if got, want := got.stdout, "mounted anna at "+mountpoint+"\n"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			var st unix.Statfs_t
			if err := unix.Statfs(mountpoint, &st); err != nil {
				t.Fatal(err)
			}
			const looked = unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC | unix.ST_RDONLY
			if got := st.Flags & looked; got != c.flags {
				t.Errorf("got flags %#x, want %#x", got, c.flags)
			}
			script := filepath.Join(mountpoint, "script")
			err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755)
			if c.flags&unix.ST_RDONLY != 0 {
				if !errors.Is(err, unix.EROFS) {
					t.Errorf("writing: got %v, want EROFS", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := exec.CommandContext(t.Context(), script).Run(); (err != nil) != (c.flags&unix.ST_NOEXEC != 0) {
				t.Errorf("running a program: got %v", err)
			}
		})
	}
}
