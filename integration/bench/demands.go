package main

import "fmt"

// The targets that are compared, as -targets calls them. The peer is the one that PEERS calls so.
const (
	plainKey       = "plain"
	loopbackKey    = "loopback"
	foldersKey     = "folders"
	passthroughKey = "passthrough"
	postgresKey    = "postgres"
	rawKey         = "raw"
	peerKey        = "juicefs"
)

// A demand is how fast a step has to be, at least. 0 demands nothing.
type demand struct {
	peer     float64 // our Postgres, of the peer
	about    float64 // our Postgres, in the step's unit, on the machine of the table; figures drift, ratios count
	raw      float64 // our Postgres, of the raw database
	plain    float64 // our folders, of a plain folder
	loopback float64 // our folders, of go-fuse's loopback
}

var demands = map[string]demand{
	copyVideo:                         {peer: 2.5, about: 185, raw: 0.75, plain: 0.9},
	copyPhotos:                        {peer: 2.6, about: 150, plain: 0.8},
	create:                            {peer: 5, about: 1250, loopback: 1.3},
	createAt8:                         {peer: 7, about: 2800, loopback: 1.3},
	createSync:                        {peer: 4.5, about: 1150, loopback: 1.2},
	"walk and stat, cold":             {peer: 10, about: 44000, loopback: 1.3},
	"read the video, cold":            {peer: 18, about: 550, raw: 0.6, plain: 0.9},
	"read the photos, cold":           {peer: 20, about: 220, plain: 0.8},
	"read the small files, cold":      {peer: 4, about: 2000, loopback: 1.2},
	"random 4K reads, cold":           {peer: 80, about: 3300, plain: 0.9},
	"500 random 4K writes, one fsync": {peer: 4, about: 2200, loopback: 0.9},
	"rename":                          {peer: 6, about: 2200, loopback: 1.2},
	"rm -rf":                          {peer: 7, about: 2900, loopback: 1.2},
}

// versus says what was reached of what is demanded.
func versus(got, want float64) string {
	switch {
	case got == 0:
		return "–"
	case want == 0:
		return figure(got)
	case got < want:
		return fmt.Sprintf("**%s**, short of %v", figure(got), want)
	}
	return fmt.Sprintf("%s, reached %v", figure(got), want)
}

// demandTable has the ratios that count, each with what it has to be.
func (r *results) demandTable(p *plan) string {
	var rows [][]string
	for _, s := range p.selected() {
		if !p.wanted(s.name) {
			continue
		}
		want := demands[s.name]
		rows = append(rows, []string{s.name,
			versus(r.ratio(s.name, postgresKey, peerKey), want.peer),
			versus(median(r.rates(s.name, postgresKey)), want.about),
			versus(r.ratio(s.name, postgresKey, rawKey), want.raw),
			versus(r.ratio(s.name, foldersKey, plainKey), want.plain),
			versus(r.ratio(s.name, foldersKey, loopbackKey), want.loopback),
			versus(r.ratio(s.name, passthroughKey, plainKey), want.plain),
			versus(r.ratio(s.name, passthroughKey, loopbackKey), want.loopback),
		})
	}
	return markdown([]string{"step", "Postgres / " + peerKey, "Postgres, about", "Postgres / raw", "folders / plain", "folders / loopback",
		"passthrough / plain", "passthrough / loopback"}, rows)
}
