package integration

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
)

// A copier copies files into a drive, several at a time, until it is stopped or something fails, and knows which of them were
// closed without an error.
type copier struct {
	drive  *os.Root      // keeps to the drive, and keeps it busy, whatever becomes of the mountpoint
	enough chan struct{} // closed when so many files are closed that the copy is in full swing
	stop   chan struct{} // closed to stop it
	done   sync.WaitGroup

	mu     sync.Mutex // guards the rest
	next   int
	closed []int
	failed error // what ended it first
}

const (
	copierWriters = 4
	copierEnough  = 150 // files
)

// copyInto starts to copy.
func copyInto(t *testing.T, dir string) *copier {
	t.Helper()
	drive, err := os.OpenRoot(dir)
	check(t, err)
	c := &copier{drive: drive, enough: make(chan struct{}), stop: make(chan struct{})}
	for range copierWriters {
		c.done.Go(func() {
			for c.copyOne() {
			}
		})
	}
	return c
}

func (c *copier) copyOne() bool {
	select {
	case <-c.stop:
		return false
	default:
	}
	c.mu.Lock()
	number := c.next
	c.next++
	c.mu.Unlock()

	err := c.write(number)

	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if c.failed == nil {
			c.failed = err
		}
		return false
	}
	if c.closed = append(c.closed, number); len(c.closed) == copierEnough {
		close(c.enough)
	}
	return true
}

func (c *copier) write(number int) error {
	file, err := c.drive.Create(copiedName(number))
	if err != nil {
		return err
	}
	_, err = file.Write(copiedContent(number))
	if errClose := file.Close(); err == nil {
		err = errClose
	}
	return err
}

// waitUntilBusy returns when the copy is in full swing.
func (c *copier) waitUntilBusy(t *testing.T) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		c.done.Wait()
		close(ended)
	}()
	select {
	case <-c.enough:
	case <-ended:
		t.Fatalf("the copy ended before it was under way: %v", c.failed)
	}
}

// finish stops the copy and returns the numbers of the files that were closed without an error.
func (c *copier) finish(t *testing.T) []int {
	t.Helper()
	close(c.stop)
	c.done.Wait()
	check(t, c.drive.Close())
	slices.Sort(c.closed)
	return c.closed
}

func copiedName(number int) string { return fmt.Sprintf("file-%06d", number) }

// copiedContent is what the file of a number holds: most are small, some take many writes.
func copiedContent(number int) []byte {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(number))
	source := rand.NewChaCha8(seed)
	size := source.Uint64() % (32 << 10)
	if number%16 == 0 {
		size = source.Uint64() % (3 << 20)
	}
	content := make([]byte, size)
	_, _ = source.Read(content) // never fails
	return content
}

// areWhole fails the test unless the files are there with all they should hold.
func areWhole(t *testing.T, dir string, numbers []int) {
	t.Helper()
	t.Logf("%d files had been closed", len(numbers))
	drive, err := os.OpenRoot(dir)
	check(t, err)
	defer drive.Close()
	for _, number := range numbers {
		got, err := drive.ReadFile(copiedName(number))
		if err != nil {
			t.Error(err)
		} else if want := copiedContent(number); !bytes.Equal(got, want) {
			t.Errorf("%s is not as it was closed: %d bytes, want %d", copiedName(number), len(got), len(want))
		}
	}
}
