package pgstore

import (
	"encoding/binary"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// pieces are content on its way to the database, a bytea[]. pgx would write them one after the other into a buffer that grows, and so copy 2 MiB
// about five times; here the buffer is made as long as it has to be.
type pieces [][]byte

// registerPieces has a connection know how to send pieces.
func registerPieces(c *pgx.Conn) {
	known, ok := c.TypeMap().TypeForOID(pgtype.ByteaArrayOID)
	if !ok {
		panic("pgx knows no bytea[]")
	}
	c.TypeMap().RegisterType(&pgtype.Type{Name: known.Name, OID: known.OID, Codec: piecesCodec{known.Codec}})
}

// piecesCodec is that of bytea[], but for pieces.
type piecesCodec struct{ pgtype.Codec }

// PlanEncode implements pgtype.Codec.
func (c piecesCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if _, ok := value.(pieces); ok && format == pgtype.BinaryFormatCode {
		return encodePieces{}
	}
	return c.Codec.PlanEncode(m, oid, format, value)
}

type encodePieces struct{}

// Encode implements pgtype.EncodePlan: an array in its binary form (array_recv in Postgres).
func (encodePieces) Encode(value any, buf []byte) ([]byte, error) {
	all := value.(pieces)
	n := 20
	for _, p := range all {
		n += 4 + len(p)
	}
	if cap(buf)-len(buf) < n {
		buf = append(make([]byte, 0, len(buf)+n), buf...)
	}
	const dimensions, lowest = 1, 1
	be := binary.BigEndian
	if len(all) == 0 {
		buf = be.AppendUint32(buf, 0)
	} else {
		buf = be.AppendUint32(buf, dimensions)
	}
	buf = be.AppendUint32(buf, 0) // none is null
	buf = be.AppendUint32(buf, pgtype.ByteaOID)
	if len(all) > 0 {
		buf = be.AppendUint32(buf, uint32(len(all)))
		buf = be.AppendUint32(buf, lowest)
	}
	for _, p := range all {
		buf = be.AppendUint32(buf, uint32(len(p)))
		buf = append(buf, p...)
	}
	return buf, nil
}
