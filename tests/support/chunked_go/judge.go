package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/vbatts/tar-split/archive/tar"
	"go.podman.io/storage/pkg/archive"
)

// What is said of a layer: one of the three.
type verdict struct {
	DiffID        string `json:"diff_id,omitempty"`
	MetadataError string `json:"metadata_error,omitempty"`
	PullError     string `json:"pull_error,omitempty"`
}

func judged(s *store, blob, annotationsPath, dest string) (result verdict) {
	defer func() {
		if problem := recover(); problem != nil {
			result = verdict{MetadataError: fmt.Sprint("panic: ", problem)}
		}
	}()
	options := &archive.TarOptions{WhiteoutFormat: archive.OverlayWhiteoutFormat}
	output, _, metadataErr, pullErr := pull(s, blob, annotationsPath, dest, options)
	if metadataErr != nil {
		return verdict{MetadataError: metadataErr.Error()}
	}
	if pullErr != nil {
		return verdict{PullError: pullErr.Error()}
	}
	defer output.TarSplit.Close()
	return verdict{DiffID: output.UncompressedDigest.String()}
}

func judge() {
	folder, err := os.MkdirTemp("", "store")
	check(err)
	defer os.RemoveAll(folder)
	lines, output := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for lines.Scan() {
		words := strings.Split(lines.Text(), "\t")
		check(output.Encode(judged(&store{folder: folder, data: map[string][]byte{}}, words[0], words[1], words[2])))
	}
	check(lines.Err())
}

type moment struct {
	Seconds     int64
	Nanoseconds int
}

// A member as the reader holds it against the table of contents. Names are base64, since they are bytes. The times: modified, accessed, changed.
type member struct {
	Error                    string
	IsEnd                    bool
	Name, Target             string
	Type                     string
	Mode, Size, Major, Minor int64
	UID, GID                 int
	Times                    [3]moment
	Xattrs                   map[string]string
}

func encoded(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func headers() {
	lines, output := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		data, err := base64.StdEncoding.DecodeString(lines.Text())
		check(err)
		check(output.Encode(memberOf(data)))
	}
	check(lines.Err())
}

func memberOf(data []byte) member {
	header, err := tar.NewReader(bytes.NewReader(data)).Next()
	if err != nil {
		return member{Error: err.Error(), IsEnd: err == io.EOF}
	}
	found := member{
		Name: encoded(header.Name), Target: encoded(header.Linkname), Type: string(header.Typeflag), Mode: header.Mode, Size: header.Size,
		Major: header.Devmajor, Minor: header.Devminor, UID: header.Uid, GID: header.Gid, Xattrs: map[string]string{},
	}
	for i, one := range []time.Time{header.ModTime, header.AccessTime, header.ChangeTime} {
		found.Times[i] = moment{one.Unix(), one.Nanosecond()}
	}
	for key, value := range header.PAXRecords {
		if name, ok := strings.CutPrefix(key, archive.PaxSchilyXattr); ok {
			found.Xattrs[encoded(name)] = encoded(value)
		}
	}
	return found
}
