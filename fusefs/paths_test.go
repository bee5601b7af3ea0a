package fusefs

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func TestPathsFollowNames(t *testing.T) {
	p := newPaths(math.MaxUint64)
	want := func(what string, of place, want string) {
		t.Helper()
		if got := p.path(of); got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	removed := func(at place, want uint64) {
		t.Helper()
		if got := p.removed(at); got != want {
			t.Errorf("removing %v: got node %d, want %d", at, got, want)
		}
	}
	want("the root", place{folder: 1}, "/")
	want("a name in the root", place{1, "a"}, "/a")
	want("a node never seen", place{folder: 7}, "…")
	want("a name in a folder never seen", place{7, "c"}, "…/c")

	p.saw(3, place{2, "b"})
	want("below a folder never seen", place{3, "c"}, "…/b/c")
	p.saw(2, place{1, "a"})
	want("below a folder seen since", place{3, "c"}, "/a/b/c")

	p.moved(place{1, "a"}, place{1, "x"}, false)
	want("a folder renamed", place{folder: 3}, "/x/b")
	p.saw(4, place{1, "y"})
	p.moved(place{1, "x"}, place{1, "y"}, true)
	want("a folder exchanged with a file", place{folder: 3}, "/y/b")
	want("the file", place{folder: 4}, "/x")
	p.moved(place{2, "b"}, place{1, "x"}, false)
	want("renamed over the file", place{folder: 3}, "/x")
	want("the file, which may be open", place{folder: 4}, "/x")
	removed(place{1, "x"}, 3)
	removed(place{1, "x"}, 0)
	want("a node without a name, which may be open", place{folder: 3}, "/x")

	p.saw(5, place{2, "one name"})
	p.saw(5, place{2, "another"})
	want("a node with two names", place{folder: 5}, "/y/another")
	removed(place{2, "one name"}, 5)
	removed(place{2, "another"}, 5)

	p.saw(10, place{11, "round"})
	p.saw(11, place{10, "round"})
	if got := p.path(place{folder: 10}); !strings.HasPrefix(got, "…/round/round/") {
		t.Errorf("a circle: got %.20q", got)
	}
}

func TestPathsStartAtTheRootOfTheirDrive(t *testing.T) {
	p := newPaths(maxIno)
	p.saw(2<<inoBits|1, place{1, "alice"})
	p.saw(2<<inoBits|5, place{2<<inoBits | 1, "folder"})
	p.saw(3<<inoBits|5, place{3<<inoBits | 1, "another's"})
	if got := p.path(place{2<<inoBits | 5, "file"}); got != "/folder/file" {
		t.Errorf("got %q, want %q", got, "/folder/file")
	}
}

func TestANodeThatLostItsNameDoesNotGetItBack(t *testing.T) {
	p := newPaths(math.MaxUint64)
	name := place{1, "name"}
	p.saw(2, name)
	p.removed(name)
	p.saw(3, name)
	for i := range uint64(maxPaths / 2) {
		p.saw(100+i, place{1, fmt.Sprint(i)})
	}
	if got := p.path(place{folder: 2}); got != "/name" {
		t.Errorf("the removed node: got %q, want the name it had", got)
	}
	if got := p.moved(name, place{1, "moved"}, false); got != 3 {
		t.Errorf("the name leads to node %d, want 3", got)
	}
}

func TestPathsAreBoundedAndKeepWhatIsUsed(t *testing.T) {
	p := newPaths(math.MaxUint64)
	p.saw(2, place{1, "used"})
	p.saw(3, place{1, "not used"})
	for i := range uint64(4 * maxPaths) {
		p.saw(100+i, place{1, fmt.Sprint(i)})
		if i%1000 == 0 {
			if got := p.path(place{2, "file"}); got != "/used/file" {
				t.Fatalf("after %d others: got %q", i, got)
			}
		}
		if n := len(p.young.places) + len(p.old.places); n > maxPaths {
			t.Fatalf("%d nodes are remembered, want at most %d", n, maxPaths)
		}
	}
	if got := p.path(place{folder: 3}); got != "…" {
		t.Errorf("the one that was not used: got %q, want it forgotten", got)
	}
	// One node of very many names.
	for i := range 4 * maxPaths {
		p.saw(2, place{1, fmt.Sprint("name ", i)})
	}
	if n := len(p.young.nodes) + len(p.old.nodes); n > maxPaths {
		t.Errorf("%d names are remembered, want at most %d", n, maxPaths)
	}
}
