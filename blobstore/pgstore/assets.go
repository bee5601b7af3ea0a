package pgstore

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"mediafs/auth"
	"mediafs/blobstore"
)

var _ blobstore.Assets = (*Store)(nil)

// pageAssets is how many assets a page has that does not say.
const pageAssets = 1000

// assetCursor is where a list of assets goes on: after an asset, by whichever order it is in.
type assetCursor struct {
	Drive        string
	Ns, Ino      int64  // by creation
	Folder, Name []byte // by path
}

// FindAssets is one round trip (mediafs.find_assets), unless names that are not UTF-8 pass the database and not the pattern.
func (s *Store) FindAssets(ctx context.Context, session auth.Session, query blobstore.AssetQuery) (blobstore.AssetPage, error) {
	const op = "find assets"
	if err := check(session); err != nil {
		return blobstore.AssetPage{}, err
	}
	if _, err := path.Match(query.Name, ""); err != nil {
		return blobstore.AssetPage{}, fmt.Errorf("pgstore: %s: the pattern %q: %w", op, query.Name, blobstore.ErrInvalid)
	}
	after := assetCursor{Ns: math.MaxInt64, Ino: math.MaxInt64, Folder: []byte{}, Name: []byte{}}
	if query.After != "" {
		text, err := base64.RawURLEncoding.DecodeString(query.After)
		if err == nil {
			err = json.Unmarshal(text, &after)
		}
		if err != nil || !isText(after.Drive) {
			return blobstore.AssetPage{}, fmt.Errorf("pgstore: %s: no page begins after %q: %w", op, query.After, blobstore.ErrInvalid)
		}
	}
	limit := query.Limit
	if limit <= 0 {
		limit = pageAssets
	}
	for {
		found, err := s.askAssets(ctx, session, &query, after, limit+1)
		if err != nil {
			return blobstore.AssetPage{}, translate(ctx, op, err)
		}
		page, more := found, len(found) > limit
		if more {
			page = found[:limit]
			after = page[limit-1].cursor
		}
		var result blobstore.AssetPage
		for _, f := range page {
			if query.Name == "" || matches(query.Name, string(f.cursor.Name)) {
				result.Assets = append(result.Assets, f.asset)
			}
		}
		if more && len(result.Assets) == 0 {
			continue
		}
		if more {
			text, err := json.Marshal(after)
			if err != nil {
				return blobstore.AssetPage{}, err
			}
			result.Next = base64.RawURLEncoding.EncodeToString(text)
		}
		return result, nil
	}
}

// A foundAsset is an asset, and the cursor of the page that begins after it.
type foundAsset struct {
	asset  blobstore.Asset
	cursor assetCursor
}

// askAssets is one round trip. It may give assets whose names do not match.
func (s *Store) askAssets(ctx context.Context, session auth.Session, query *blobstore.AssetQuery, after assetCursor, limit int) ([]foundAsset, error) {
	var types []string
	if query.Types != nil {
		types = []string{}
	}
	for _, t := range query.Types {
		if isText(t) {
			types = append(types, t)
		}
	}
	var regex, job *string
	if query.Name != "" {
		pattern := patternRegex(query.Name)
		regex = &pattern
	}
	if query.Job != "" {
		if !isText(query.Job) {
			return nil, nil // nothing has it
		}
		job = &query.Job
	}
	since, until, largest := int64(math.MinInt64), int64(math.MaxInt64), int64(math.MaxInt64)
	if !query.Since.IsZero() {
		since = query.Since.UnixNano()
	}
	if !query.Until.IsZero() {
		until = query.Until.UnixNano()
	}
	if query.MaxSize > 0 {
		largest = query.MaxSize
	}
	byPath := query.Order != blobstore.ByCreation
	rows, err := s.pool.Query(ctx, `select o_drive, o_id, o_ino, o_folder, o_name, o_size, o_job, o_created, o_mtime, o_described, o_type, o_sha256, o_width, o_height,
			o_taken, o_count, o_at
		from mediafs.find_assets($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
		order by case when $12 then 0 else -o_created end, o_drive collate "C", case when $12 then 0 else -o_ino end, o_folder, o_name limit $18`,
		credential(session), driveTexts(query.Drives), namesOf(query.Folder), query.Shallow, regex, types, job, since, until, query.MinSize, largest, byPath,
		after.Drive, after.Ns, after.Ino, after.Folder, after.Name, int32(min(limit, math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanAsset)
}

// driveTexts are the names of drives that the database can have; nil stays nil, which is all.
func driveTexts(drives []blobstore.DriveName) []string {
	if drives == nil {
		return nil
	}
	texts := []string{}
	for _, drive := range drives {
		if isText(string(drive)) {
			texts = append(texts, string(drive))
		}
	}
	return texts
}

// namesOf are the names of a path, apart.
func namesOf(path string) [][]byte {
	names := [][]byte{}
	if trimmed := strings.Trim(path, "/"); trimmed != "" {
		for name := range strings.SplitSeq(trimmed, "/") {
			names = append(names, []byte(name))
		}
	}
	return names
}

// isText says whether the database can have a text.
func isText(text string) bool { return utf8.ValidString(text) && !strings.ContainsRune(text, 0) }

func scanAsset(r pgx.CollectableRow) (f foundAsset, err error) {
	a, c := &f.asset, &f.cursor
	var id [16]byte
	var job, kind *string
	var mtime int64
	var width, height *int32
	var taken, count, at *int64
	err = r.Scan(&c.Drive, &id, &c.Ino, &c.Folder, &c.Name, &a.Size, &job, &c.Ns, &mtime, &a.Described, &kind, &a.SHA256, &width, &height, &taken, &count, &at)
	if err != nil {
		return f, err
	}
	a.ID, a.Drive, a.Ino, a.Path = id, blobstore.DriveName(c.Drive), blobstore.Ino(c.Ino), string(c.Name)
	if len(c.Folder) > 0 {
		a.Path = string(c.Folder) + "/" + a.Path
	}
	a.Created, a.Changed = time.Unix(0, c.Ns), time.Unix(0, mtime)
	if job != nil {
		a.Job = *job
	}
	if kind != nil {
		a.Type = *kind
	}
	if width != nil && height != nil {
		a.Width, a.Height = int(*width), int(*height)
	}
	if taken != nil {
		a.Taken = time.Unix(0, *taken)
	}
	if count != nil && at != nil {
		a.AccessCount, a.LastAccessed = *count, time.Unix(0, *at)
	}
	return f, nil
}

// folderCursor is the folder after which a list of folders goes on.
type folderCursor struct {
	Drive string
	Name  []byte
}

// FindFolders is one round trip (mediafs.find_folders).
func (s *Store) FindFolders(ctx context.Context, session auth.Session, query blobstore.FolderQuery) (page blobstore.FolderPage, err error) {
	const op = "find folders"
	if err := check(session); err != nil {
		return page, err
	}
	after := folderCursor{Name: []byte{}}
	if query.After != "" {
		text, err := base64.RawURLEncoding.DecodeString(query.After)
		if err == nil {
			err = json.Unmarshal(text, &after)
		}
		if err != nil || !isText(after.Drive) {
			return page, fmt.Errorf("pgstore: %s: no page begins after %q: %w", op, query.After, blobstore.ErrInvalid)
		}
	}
	limit := query.Limit
	if limit <= 0 {
		limit = pageAssets
	}
	rows, err := s.pool.Query(ctx, `select o_drive, o_name, o_mtime from mediafs.find_folders($1, $2, $3, $4, $5, $6) order by o_drive collate "C", o_name`,
		credential(session), driveTexts(query.Drives), namesOf(query.Folder), after.Drive, after.Name, int32(min(limit, math.MaxInt32-1)+1))
	if err != nil {
		return page, translate(ctx, op, err)
	}
	in := strings.Trim(query.Folder, "/")
	page.Folders, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (f blobstore.Folder, err error) {
		var name []byte
		var mtime int64
		err = r.Scan(&f.Drive, &name, &mtime)
		f.Path, f.Changed = path.Join(in, string(name)), time.Unix(0, mtime)
		return f, err
	})
	if err != nil {
		return blobstore.FolderPage{}, translate(ctx, op, err)
	}
	if len(page.Folders) > limit {
		page.Folders = page.Folders[:limit]
		last := page.Folders[limit-1]
		text, err := json.Marshal(folderCursor{string(last.Drive), []byte(path.Base(last.Path))})
		if err != nil {
			return blobstore.FolderPage{}, err
		}
		page.Next = base64.RawURLEncoding.EncodeToString(text)
	}
	return page, nil
}

// matches says whether a name fits a pattern of path.Match, without regard to case.
func matches(pattern, name string) bool {
	ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(name))
	return ok && err == nil
}

// patternRegex is a regular expression of Postgres for names whose bytes are characters (mediafs.may_match) that at least all names match which fit a pattern of
// path.Match. What is not ASCII it mostly lets pass where the pattern has a class.
func patternRegex(pattern string) string {
	const anyone = `.[\u0080-\u00bf]{0,3}` // one character, or a byte that belongs to none
	var b strings.Builder
	b.WriteByte('^')
	runes := []rune(strings.ToLower(pattern))
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		if r == '\\' && i+1 < len(runes) {
			i++
			writeRune(&b, runes[i], anyone)
			continue
		}
		switch r {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteString(anyone)
		case '[':
			i = writeClass(&b, runes, i+1)
		default:
			writeRune(&b, r, anyone)
		}
	}
	b.WriteByte('$')
	return b.String()
}

// writeClass has a regular expression go on with the class of a pattern that begins at runes[i], and returns where that ends. The pattern is one.
func writeClass(b *strings.Builder, runes []rune, i int) int {
	negated := runes[i] == '^'
	if negated {
		i++
	}
	next := func() (r rune) {
		if runes[i] == '\\' {
			i++
		}
		r = runes[i]
		i++
		return r
	}
	var in [unicode.MaxASCII + 1]bool
	for first := true; first || runes[i] != ']'; first = false {
		low := next()
		high := low
		if runes[i] == '-' {
			i++
			high = next()
		}
		for r := range in {
			if lower := unicode.ToLower(rune(r)); low <= lower && lower <= high {
				in[r] = true
			}
		}
	}
	b.WriteByte('(')
	for r := 1; r < len(in); r++ {
		if in[r] != negated {
			fmt.Fprintf(b, `\u%04x|`, r)
		}
	}
	b.WriteString(`[\u0080-\u00ff][\u0080-\u00bf]{0,3})`)
	return i
}

// writeRune has a regular expression go on with a character, in either case, or with any where it may stand for bytes that are none.
func writeRune(b *strings.Builder, r rune, anyone string) {
	if r == unicode.ReplacementChar || r == 0 {
		b.WriteString(anyone)
		return
	}
	alike := []rune{r}
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		alike = append(alike, f)
	}
	if r == 'i' {
		alike = append(alike, 'İ') // whose lower case it is, though no other case of it
	}
	slices.Sort(alike)
	b.WriteByte('(')
	for i, r := range alike {
		if i > 0 {
			b.WriteByte('|')
		}
		for _, c := range []byte(string(r)) {
			fmt.Fprintf(b, `\u%04x`, c)
		}
	}
	b.WriteByte(')')
}
