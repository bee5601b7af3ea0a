package memstore

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/describe"
)

var _ blobstore.Assets = (*Store)(nil)

// defaultLimit is how many assets a page has that does not say.
const defaultLimit = 1000

// FindAssets implements blobstore.Assets. It looks at everything there is for each page; a cursor is the position of the asset
// before it.
func (s *Store) FindAssets(ctx context.Context, session auth.Session, query blobstore.AssetQuery) (page blobstore.AssetPage, err error) {
	if err := check(ctx, session); err != nil {
		return page, fmt.Errorf("find assets: %w", err)
	}
	if _, err := path.Match(query.Name, ""); err != nil {
		return page, fmt.Errorf("find assets named %q: %w", query.Name, blobstore.ErrInvalid)
	}
	after, err := hex.DecodeString(query.After)
	if err != nil {
		return page, fmt.Errorf("find assets after %q: %w", query.After, blobstore.ErrInvalid)
	}
	var all []blobstore.Asset
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.drives {
		if mayFind(session, d.name) && (query.Drives == nil || slices.Contains(query.Drives, d.name)) {
			all = append(all, d.assets(&query)...)
		}
	}
	position := func(a blobstore.Asset) string { return string(a.Drive) + "\x00" + a.Path }
	if query.Order == blobstore.ByCreation {
		position = func(a blobstore.Asset) string {
			return fmt.Sprintf("%020d%s", math.MaxInt64-a.Created.UnixNano(), a.ID)
		}
	}
	all = slices.DeleteFunc(all, func(a blobstore.Asset) bool { return position(a) <= string(after) })
	slices.SortFunc(all, func(a, b blobstore.Asset) int { return cmp.Compare(position(a), position(b)) })
	limit := query.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	page.Assets = all[:min(limit, len(all))]
	if len(all) > limit {
		page.Next = hex.EncodeToString([]byte(position(page.Assets[limit-1])))
	}
	return page, nil
}

// FindFolders implements blobstore.Assets. A cursor is the position of the folder before it.
func (s *Store) FindFolders(ctx context.Context, session auth.Session, query blobstore.FolderQuery) (page blobstore.FolderPage, err error) {
	if err := check(ctx, session); err != nil {
		return page, fmt.Errorf("find folders: %w", err)
	}
	after, err := hex.DecodeString(query.After)
	if err != nil {
		return page, fmt.Errorf("find folders after %q: %w", query.After, blobstore.ErrInvalid)
	}
	in := strings.Trim(query.Folder, "/")
	there, other := in == "", false
	var all []blobstore.Folder
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.drives {
		if !mayFind(session, d.name) || query.Drives != nil && !slices.Contains(query.Drives, d.name) {
			continue
		}
		folders, n := d.folders(in)
		there, other = there || n != nil && n.attr.IsDir(), other || n != nil && !n.attr.IsDir()
		all = append(all, folders...)
	}
	switch {
	case there:
	case other:
		return page, fmt.Errorf("find folders in %q: %w", in, blobstore.ErrNotDir)
	default:
		return page, fmt.Errorf("find folders in %q: %w", in, blobstore.ErrNotExist)
	}
	position := func(f blobstore.Folder) string { return string(f.Drive) + "\x00" + f.Path }
	all = slices.DeleteFunc(all, func(f blobstore.Folder) bool { return position(f) <= string(after) })
	slices.SortFunc(all, func(a, b blobstore.Folder) int { return cmp.Compare(position(a), position(b)) })
	limit := query.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	page.Folders = all[:min(limit, len(all))]
	if len(all) > limit {
		page.Next = hex.EncodeToString([]byte(position(page.Folders[limit-1])))
	}
	return page, nil
}

// folders are those in the folder at a path, and what is there; nil: nothing.
func (d *drive) folders(in string) (found []blobstore.Folder, at *node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at = d.nodes[blobstore.RootIno]
	for name := range strings.FieldsFuncSeq(in, func(r rune) bool { return r == '/' }) {
		if !at.attr.IsDir() {
			return nil, nil
		}
		entry, ok := at.folder.names[name]
		if !ok {
			return nil, nil
		}
		at = entry.node
	}
	if !at.attr.IsDir() {
		return nil, at
	}
	for name, entry := range at.folder.names {
		if entry.node.attr.IsDir() {
			found = append(found, blobstore.Folder{Drive: d.name, Path: path.Join(in, name), Changed: time.Unix(0, entry.node.attr.MtimeNs)})
		}
	}
	return found, at
}

func mayFind(session auth.Session, drive blobstore.DriveName) bool {
	switch session.Role {
	case auth.RoleAdmin:
		return true
	case auth.RoleGuest:
		return drive == blobstore.PublicDrive
	}
	return drive == blobstore.DriveName(session.User)
}

// assets are those of a drive that fit a query, each under the first of its names that does.
func (d *drive) assets(query *blobstore.AssetQuery) (found []blobstore.Asset) {
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := make(map[*node]bool)
	var walk func(folder *node, at string)
	walk = func(folder *node, at string) {
		for _, name := range slices.Sorted(maps.Keys(folder.folder.names)) {
			n := folder.folder.names[name].node
			where := path.Join(at, name)
			switch {
			case n.attr.IsDir():
				walk(n, where)
			case n.attr.IsRegular() && !seen[n]:
				if a := d.asset(n, where); fits(&a, query) {
					seen[n] = true
					found = append(found, a)
				}
			}
		}
	}
	walk(d.nodes[blobstore.RootIno], "")
	return found
}

func fits(a *blobstore.Asset, q *blobstore.AssetQuery) bool {
	folder, name := path.Split(a.Path)
	if wanted := strings.Trim(q.Folder, "/"); wanted != "" || q.Shallow {
		if in := strings.TrimSuffix(folder, "/"); in != wanted && (q.Shallow || !strings.HasPrefix(in, wanted+"/")) {
			return false
		}
	}
	if q.Name != "" {
		if ok, err := path.Match(strings.ToLower(q.Name), strings.ToLower(name)); err != nil || !ok {
			return false
		}
	}
	ofType := func(wanted string) bool {
		kind, ofKind := strings.CutSuffix(wanted, "*")
		return a.Type == wanted || ofKind && strings.HasPrefix(a.Type, kind)
	}
	switch {
	case q.Types != nil && !slices.ContainsFunc(q.Types, ofType),
		q.Job != "" && a.Job != q.Job,
		!q.Since.IsZero() && a.Created.Before(q.Since),
		!q.Until.IsZero() && !a.Created.Before(q.Until),
		a.Size < q.MinSize,
		q.MaxSize != 0 && a.Size > q.MaxSize:
		return false
	}
	return true
}

func (d *drive) asset(n *node, where string) blobstore.Asset {
	a := blobstore.Asset{
		ID: n.id, Drive: d.name, Ino: n.attr.Ino, Path: where, Size: n.content.size, Job: string(n.xattrs[blobstore.XattrJob]),
		Created: time.Unix(0, n.bornNs), Changed: time.Unix(0, n.attr.MtimeNs), Described: true, AccessCount: int64(n.accesses),
	}
	facts := n.content.describe()
	a.Type, a.SHA256, a.Width, a.Height, a.Taken = facts.Type, facts.SHA256, facts.Width, facts.Height, facts.Taken
	if n.accesses > 0 {
		a.LastAccessed = time.Unix(0, n.accessedNs)
	}
	return a
}

// describe is done whenever it is asked for, and so always of what is there now.
func (c *content) describe() blobstore.Described {
	facts, err := describe.Read(context.Background(), wholeContent{c}, c.size)
	if err != nil {
		panic(err) // memory can be read
	}
	return facts
}

type wholeContent struct{ *content }

func (c wholeContent) ReadAt(p []byte, off int64) (int, error) { return c.readAt(p, off), nil }

// facts are the extended attributes that blobstore.XattrFacts and those beside it promise, but for the job, which is kept with the others.
func (d *drive) facts(n *node) map[string]string {
	if !n.attr.IsRegular() {
		return nil
	}
	a := d.asset(n, "")
	facts := map[string]string{
		blobstore.XattrID:          a.ID.String(),
		blobstore.XattrType:        a.Type,
		blobstore.XattrSHA256:      hex.EncodeToString(a.SHA256),
		blobstore.XattrCreated:     a.Created.UTC().Format(time.RFC3339Nano),
		blobstore.XattrAccessCount: strconv.FormatInt(a.AccessCount, 10),
	}
	if a.Width > 0 {
		facts[blobstore.XattrWidth], facts[blobstore.XattrHeight] = strconv.Itoa(a.Width), strconv.Itoa(a.Height)
	}
	if !a.Taken.IsZero() {
		facts[blobstore.XattrTaken] = a.Taken.UTC().Format(time.RFC3339Nano)
	}
	if !a.LastAccessed.IsZero() {
		facts[blobstore.XattrLastAccessed] = a.LastAccessed.UTC().Format(time.RFC3339Nano)
	}
	return facts
}
