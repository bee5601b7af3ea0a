package integration

import (
	"bytes"
	"encoding/binary"
	"iter"
)

// A dirent is an entry as getdents64(2) gives it.
type dirent struct {
	ino  uint64
	next int64 // where lseek(2) goes on after it
	kind byte  // DT_REG and so on
	name string
}

// direntsOf are the entries in a buffer that getdents64(2) has filled.
func direntsOf(buffer []byte) iter.Seq[dirent] {
	return func(yield func(dirent) bool) {
		for len(buffer) > 0 {
			length := binary.NativeEndian.Uint16(buffer[16:])
			name, _, _ := bytes.Cut(buffer[19:length], []byte{0})
			e := dirent{
				ino: binary.NativeEndian.Uint64(buffer), next: int64(binary.NativeEndian.Uint64(buffer[8:])),
				kind: buffer[18], name: string(name),
			}
			buffer = buffer[length:]
			if !yield(e) {
				return
			}
		}
	}
}
