package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mountType is what the kernel calls our mounts.
const mountType = "fuse.mediafs"

// resolveMountpoint returns the absolute path of a mountpoint as the kernel's table has it. It asks nothing of what is
// mounted there, which may be dead, as long as the path itself is no symbolic link.
func resolveMountpoint(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	folder, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return path, nil //nolint:nilerr // whoever uses it will say what is wrong
	}
	resolved := filepath.Join(folder, filepath.Base(path))
	mounts, err := ourMounts()
	if err != nil {
		return "", err
	}
	if _, ok := mounts[resolved]; ok {
		return resolved, nil
	}
	if whole, err := filepath.EvalSymlinks(resolved); err == nil {
		return whole, nil
	}
	return resolved, nil
}

// ourMounts returns the drives that are mounted where this process can see them: what df shows as their name, by mountpoint.
func ourMounts() (map[string]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMountinfo(f)
}

// parseMountinfo reads the kernel's table of mounts, proc_pid_mountinfo(5):
//
//	36 35 0:45 / /mnt/drive rw,nosuid,nodev shared:1 - fuse.mediafs mediafs:anna rw,user_id=0
func parseMountinfo(r io.Reader) (map[string]string, error) {
	mounts := map[string]string{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(rest) < 2 {
			return nil, fmt.Errorf("/proc/self/mountinfo has the line %q", lines.Text())
		}
		mountpoint := unescapeOctal(fields[4])
		delete(mounts, mountpoint) // what is mounted last is on top
		if rest[0] == mountType {
			mounts[mountpoint] = unescapeOctal(rest[1])
		}
	}
	return mounts, lines.Err()
}

// unescapeOctal undoes the kernel's \040 for a space and the like (mangle_path of fs/seq_file.c).
func unescapeOctal(s string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 || i+4 > len(s) {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
			b.WriteByte(byte(n))
			s = s[i+4:]
			continue
		}
		b.WriteByte('\\')
		s = s[i+1:]
	}
}
