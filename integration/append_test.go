package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// appenders are processes that append to one file at once.
const (
	appenders       = 3
	appendedRecords = 400 // by each
)

// appendedRecord is a line that tells who wrote it and which it is. The longest are longer than a page, so that some cross chunks.
func appendedRecord(writer, number int) []byte {
	return fmt.Appendf(nil, "%d %d %s\n", writer, number, bytes.Repeat([]byte{byte('a' + number%26)}, 1+number*number%6000))
}

func init() {
	// append PATH WRITER appends the writer's records, each with one write(2).
	helpers["append"] = func(args []string) error {
		writer, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		file, err := os.OpenFile(args[0], os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		for number := range appendedRecords {
			if _, err := file.Write(appendedRecord(writer, number)); err != nil {
				return errors.Join(err, file.Close())
			}
		}
		return file.Close()
	}
}

// What several processes append at once is there whole, each record once and each process's in its order.
func TestWhatProcessesAppendAtOnceIsThereWhole(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		var processes []*exec.Cmd
		for writer := range appenders {
			cmd := helper(t, "append", m.path("log"), strconv.Itoa(writer))
			check(t, cmd.Start())
			processes = append(processes, cmd)
		}
		for _, cmd := range processes {
			check(t, cmd.Wait())
		}
		for _, when := range []string{"at once", "mounted again"} {
			var next [appenders]int
			for line := range bytes.Lines([]byte(readFile(t, m.path("log")))) {
				writer := int(line[0] - '0')
				if writer < 0 || writer >= appenders || !bytes.Equal(line, appendedRecord(writer, next[writer])) {
					t.Fatalf("%s: a record is not whole or not in its place: %.20q", when, line)
				}
				next[writer]++
			}
			for writer, got := range next {
				if got != appendedRecords {
					t.Errorf("%s: %d records of process %d, want %d", when, got, writer, appendedRecords)
				}
			}
			if when == "at once" {
				m.unmount(t)
				m = s.mountAt(t, alice, m.point)
			}
		}
	})
}
