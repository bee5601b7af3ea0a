package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// deadline is for one thing asked of a process that serves a target: to start, to end.
const deadline = 2 * time.Minute

// A server is a child process that serves a mount. It dies with us.
type server struct {
	cmd        *exec.Cmd
	mountpoint string
	log        *os.File
	ended      chan struct{}
	err        error // how it ended
}

// serve starts a program that says "mounted" on its standard output once its drive can be used.
func serve(ctx context.Context, mountpoint, logFile string, environment []string, argv ...string) (*server, error) {
	if err := os.MkdirAll(mountpoint, 0o755); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	s := &server{cmd: exec.Command(argv[0], argv[1:]...), mountpoint: mountpoint, log: log, ended: make(chan struct{})}
	s.cmd.Env = environment
	s.cmd.Stderr = log
	// A terminal's Ctrl-C is for us, who unmount then.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		log.Close()
		return nil, err
	}
	mounted := make(chan bool, 1)
	go func() {
		defer close(s.ended)
		defer log.Close()
		lines := bufio.NewReader(out)
		line, _ := lines.ReadString('\n') // a line that is cut short says nothing
		mounted <- strings.HasPrefix(line, "mounted ")
		_, _ = io.Copy(io.Discard, lines) // to its end
		s.err = s.cmd.Wait()
	}()
	timeout := time.NewTimer(deadline)
	defer timeout.Stop()
	select {
	case ok := <-mounted:
		if ok {
			return s, nil
		}
		<-s.ended
		err = fmt.Errorf("%s did not mount: %w", strings.Join(argv, " "), s.err)
	case <-timeout.C:
		err = fmt.Errorf("%s did not mount within %v", strings.Join(argv, " "), deadline)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	said, _ := os.ReadFile(logFile) // the error is that it did not mount
	return nil, errors.Join(err, s.kill(), fmt.Errorf("its log:\n%s", said))
}

// stop has the drive unmounted and waits for the process.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timeout := time.NewTimer(deadline)
	defer timeout.Stop()
	select {
	case <-s.ended:
		if s.err != nil {
			_ = unix.Unmount(s.mountpoint, unix.MNT_DETACH) // it may have
			return fmt.Errorf("%s: %w", strings.Join(s.cmd.Args, " "), s.err)
		}
		return nil
	case <-timeout.C:
		return errors.Join(fmt.Errorf("%s did not end within %v", strings.Join(s.cmd.Args, " "), deadline), s.kill())
	}
}

// kill ends it in any case.
func (s *server) kill() error {
	err := s.cmd.Process.Kill()
	<-s.ended
	_ = unix.Unmount(s.mountpoint, unix.MNT_DETACH) // it may never have been mounted
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
