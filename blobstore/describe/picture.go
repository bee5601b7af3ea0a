package describe

import (
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"strings"
	"time"

	"github.com/bep/imagemeta"
	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	"golang.org/x/image/webp"
)

// maxSide is the longest side of a picture in pixels that is believed: that of WebP, which among the formats of photographs has the longest.
const maxSide = 1<<24 - 1

// A format is how the facts of pictures of one type are found.
type format struct {
	config func(io.Reader) (image.Config, error) // its size; nil: meta tells it
	meta   imagemeta.ImageFormat                 // where its EXIF is; imagemeta.ImageFormatAuto: it has none
}

var formats = map[string]format{
	"image/jpeg": {jpeg.DecodeConfig, imagemeta.JPEG},
	"image/png":  {png.DecodeConfig, imagemeta.PNG},
	"image/webp": {webp.DecodeConfig, imagemeta.WebP},
	"image/tiff": {tiff.DecodeConfig, imagemeta.TIFF},
	"image/heic": {nil, imagemeta.HEIF},
	"image/heif": {nil, imagemeta.HEIF},
	"image/avif": {nil, imagemeta.AVIF},
	"image/gif":  {config: gif.DecodeConfig},
	"image/bmp":  {config: bmp.DecodeConfig},
}

// picture finds the facts of a picture: its size, as its pixels are stored and not as EXIF wants them turned, and when it was taken. What it
// does not say, or not intelligibly, is zero.
func picture(file *reader, mime string) (width, height int, taken time.Time) {
	format, ok := formats[mime]
	if !ok {
		return 0, 0, time.Time{}
	}
	if format.config != nil {
		width, height = sizeBy(format.config, file)
	}
	if format.meta != imagemeta.ImageFormatAuto {
		size, at := metaOf(file, format)
		if taken = at; format.config == nil {
			width, height = size.Width, size.Height
		}
	}
	if width <= 0 || height <= 0 || width > maxSide || height > maxSide {
		width, height = 0, 0
	}
	return width, height, taken
}

// sizeBy asks a decoder for the size of a picture.
func sizeBy(config func(io.Reader) (image.Config, error), file *reader) (width, height int) {
	// A decoder that a broken file drives mad knows nothing.
	defer func() {
		if recover() != nil {
			width, height = 0, 0
		}
	}()
	file.left = sizeBudget
	// That of TIFF jumps about, and would read the whole file into memory if it was not an io.ReaderAt.
	found, err := config(io.NewSectionReader(file, 0, file.size))
	if err != nil {
		return 0, 0
	}
	return found.Width, found.Height
}

// metaOf reads what a camera has written into a picture. imagemeta catches its own panics, and takes no length over 10 MiB.
func metaOf(file *reader, format format) (size imagemeta.ImageConfig, taken time.Time) {
	file.left = metaBudget
	tags := make(map[string]string)
	sources := imagemeta.EXIF
	if format.config == nil {
		sources |= imagemeta.CONFIG
	}
	found, _ := imagemeta.Decode(imagemeta.Options{ // an error is the end of what can be understood
		R:           io.NewSectionReader(file, 0, file.size),
		ImageFormat: format.meta,
		Sources:     sources,
		// Dates are short. A long tag is a list of many more folders of tags.
		LimitTagSize: 256,
		ShouldHandleTag: func(tag imagemeta.TagInfo) bool {
			switch tag.Tag {
			case "DateTimeOriginal", "OffsetTimeOriginal", "CreateDate", "OffsetTimeDigitized":
				return strings.HasPrefix(tag.Namespace, "IFD0") // IFD1 is the thumbnail
			}
			return false
		},
		HandleTag: func(tag imagemeta.TagInfo) error {
			if text, ok := tag.Value.(string); ok {
				tags[tag.Tag] = strings.TrimSpace(text)
			}
			return nil
		},
	})
	taken = momentOf(tags["DateTimeOriginal"], tags["OffsetTimeOriginal"])
	if taken.IsZero() {
		taken = momentOf(tags["CreateDate"], tags["OffsetTimeDigitized"]) // when a picture on film was scanned, say
	}
	return found.ImageConfig, taken
}

// momentOf reads a date and an offset from UTC as EXIF writes them. Without an offset it is what the camera's clock showed, taken as UTC: the same
// file has the same time wherever it is looked at. Zero if it is none.
func momentOf(date, offset string) time.Time {
	const layout = "2006:01:02 15:04:05"
	if at, err := time.Parse(layout+"-07:00", date+offset); err == nil {
		return plausible(at.UTC())
	}
	at, err := time.Parse(layout, date)
	if err != nil {
		return time.Time{}
	}
	return plausible(at)
}

// plausible is a time if a picture can be of then; not the year 0 of a clock that nobody has set.
func plausible(at time.Time) time.Time {
	if at.Year() < 1800 {
		return time.Time{}
	}
	return at
}
