// Tarlist reads tar archives as container clients do, which all use Go's archive/tar, and says what it finds.
//
// Input: archives, each with its size in front as 8 bytes, big-endian. Output: one line of JSON for each archive.
package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"strings"
)

// A member as a client sees it. Names and values are base64, since they are bytes.
type member struct {
	Name, Target string
	Type         string
	Mode         int64
	UID, GID     int
	Size         int64
	Seconds      int64
	Nanoseconds  int
	Major, Minor int64
	Digest       string
	Xattrs       map[string]string
}

type listing struct {
	Error   string
	Members []member
}

func encoded(text string) string {
	return base64.StdEncoding.EncodeToString([]byte(text))
}

func list(archive []byte) (result listing) {
	reader := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			result.Error = err.Error()
			return
		}
		digest := sha256.New()
		size, err := io.Copy(digest, reader)
		if err != nil {
			result.Error = err.Error()
			return
		}
		found := member{
			Name: encoded(header.Name), Target: encoded(header.Linkname), Type: string(header.Typeflag), Mode: header.Mode,
			UID: header.Uid, GID: header.Gid, Size: size, Seconds: header.ModTime.Unix(), Nanoseconds: header.ModTime.Nanosecond(),
			Major: header.Devmajor, Minor: header.Devminor, Digest: hex.EncodeToString(digest.Sum(nil)), Xattrs: map[string]string{},
		}
		for key, value := range header.PAXRecords {
			if strings.HasPrefix(key, "SCHILY.xattr.") && value != "" {
				found.Xattrs[encoded(strings.TrimPrefix(key, "SCHILY.xattr."))] = encoded(value)
			}
		}
		result.Members = append(result.Members, found)
	}
}

func main() {
	input, output := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	defer output.Flush()
	encoder := json.NewEncoder(output)
	for {
		var size uint64
		if err := binary.Read(input, binary.BigEndian, &size); err != nil {
			return
		}
		archive := make([]byte, size)
		if _, err := io.ReadFull(input, archive); err != nil {
			panic(err)
		}
		if err := encoder.Encode(list(archive)); err != nil {
			panic(err)
		}
	}
}
