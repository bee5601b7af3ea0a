package integration

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The application's people while their drives are mounted: an admin has all drives for as long as they are one, and the others'
// sessions end in every way in which the application ends them.
func TestTheApplicationsPeopleWhileTheirDrivesAreMounted(t *testing.T) {
	onEachKind(t, func(t *testing.T, k kind) {
		s, app, conn := newStoreOfApplication(t, k)
		var options []string
		if k == folder {
			options = []string{"--auth", app.url}
		}
		change := func(sql string, m *member) {
			t.Helper()
			_, err := conn.Exec(context.Background(), sql, m.id)
			check(t, err)
		}

		ada := app.signUp(t, "ada")
		change(`UPDATE "user" SET role = 'admin' WHERE id = $1`, ada)
		ways := map[string]struct {
			end  func(*member)
			want unix.Errno
		}{
			"signs out":  {func(m *member) { m.post(t, "/sign-out", struct{}{}, nil) }, unix.EKEYREVOKED},
			"is banned":  {func(m *member) { change(`UPDATE "user" SET banned = true WHERE id = $1`, m) }, unix.EKEYREVOKED},
			"is deleted": {func(m *member) { change(`DELETE FROM "user" WHERE id = $1`, m) }, unix.EKEYREVOKED},
			"expires": {func(m *member) {
				change(`UPDATE "session" SET "expiresAt" = now() - interval '1 second' WHERE "userId" = $1`, m)
			}, unix.EKEYEXPIRED},
		}
		if k == folder { // Better Auth removes an expired session when it is asked
			way := ways["expires"]
			way.want = unix.EKEYREVOKED
			ways["expires"] = way
		}
		members, mounts := map[string]*member{}, map[string]*mount{}
		for way := range ways {
			m := app.signUp(t, strings.ReplaceAll(way, " ", "-"))
			members[way], mounts[way] = m, s.mount(t, s.as(t, m, m.raw), options...)
			writeFile(t, mounts[way].path("file"), way)
		}
		all := s.mount(t, s.as(t, ada, ada.cookie), options...)
		if want := "mounted all drives at " + all.point; all.line != want {
			t.Errorf("printed %q, want %q", all.line, want)
		}
		folders := names(t, all.point)
		for way, m := range members {
			if !slices.Contains(folders, m.id) {
				t.Fatalf("the admin sees %q, want %s among them", folders, m.id)
			}
			if got := readFile(t, all.path(m.id, "file")); got != way {
				t.Errorf("the admin reads %q, want %q", got, way)
			}
		}

		for way, c := range ways {
			open, err := os.Open(mounts[way].path("file"))
			check(t, err)
			_, err = open.Read(make([]byte, 1))
			check(t, err)
			c.end(members[way])
			for what, do := range map[string]func() error{
				"reads an open file": func() error { _, err := open.ReadAt(make([]byte, 1), 0); return err },
				"looks at the file":  func() error { return stat(mounts[way].path("file")) },
			} {
				var err error
				for begun := time.Now(); time.Since(begun) < sessionNoticed && !errors.Is(err, c.want); {
					err = do()
				}
				if !errors.Is(err, c.want) {
					t.Errorf("who %s %s: got %v, want %v", way, what, err, c.want)
				}
			}
			check(t, open.Close())
			if got := readFile(t, all.path(members[way].id, "file")); got != way {
				t.Errorf("the admin reads %q of who %s, want %q", got, way, way)
			}
		}

		change(`UPDATE "user" SET role = 'user' WHERE id = $1`, ada)
		waitUntil(t, "who is no admin any more has no drive any more", func() bool {
			err := stat(all.path(members["signs out"].id, "file"))
			return errors.Is(err, unix.EKEYREVOKED)
		})
	})
}
