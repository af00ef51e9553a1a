// Applies and writes zstd:chunked layers with the library that podman, buildah and CRI-O use.
//
//	chunked apply BLOB ANNOTATIONS DEST [OLD-BLOB OLD-ANNOTATIONS OLD-DEST]
//	chunked headers
//	chunked judge
//	chunked write TAR BLOB ANNOTATIONS
//
// ANNOTATIONS is a JSON file. apply pulls the layer in parts into the directory DEST, with an old layer at hand if there is one, and prints
// as JSON how many bytes of the blob it asked for and the digest of the archive that tar-split and files give. judge reads lines with
// BLOB, ANNOTATIONS and DEST, separated by tabs, and prints for each as JSON that digest or why there is none: an error of the metadata, or
// one of the pull itself. There, whiteouts become what an overlay takes, as in podman's store. headers reads lines with the headers of a
// member in base64, and prints for each as JSON what the reader finds in them.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/vbatts/tar-split/tar/asm"
	tarsplit "github.com/vbatts/tar-split/tar/storage"
	"go.podman.io/storage"
	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/pkg/chunked"
	"go.podman.io/storage/pkg/chunked/compressor"
)

// A file as a registry that answers requests for ranges; counts the bytes.
type registry struct {
	file  *os.File
	bytes uint64
}

func (r *registry) GetBlobAt(chunks []chunked.ImageSourceChunk) (chan io.ReadCloser, chan error, error) {
	streams := make(chan io.ReadCloser)
	errs := make(chan error)
	go func() {
		for _, chunk := range chunks {
			r.bytes += chunk.Length
			streams <- io.NopCloser(io.NewSectionReader(r.file, int64(chunk.Offset), int64(chunk.Length)))
		}
		close(streams)
		close(errs)
	}()
	return streams, errs, nil
}

// What a partial pull asks of a driver: only that it is one.
type driver struct{ graphdriver.DriverWithDiffer }

func (driver) String() string { return "overlay" }

// The part of a store that a partial pull uses, with at most one layer in it.
type store struct {
	storage.Store
	folder string
	layers []storage.Layer
	data   map[string][]byte
	target string
}

func (s *store) PullOptions() map[string]string {
	return map[string]string{"enable_partial_images": "true", "insecure_allow_unpredictable_image_contents": "false"}
}
func (s *store) GraphDriver() (graphdriver.Driver, error)     { return driver{}, nil }
func (s *store) GraphRoot() string                            { return s.folder }
func (s *store) RunRoot() string                              { return s.folder }
func (s *store) Layers() ([]storage.Layer, error)             { return s.layers, nil }
func (s *store) DifferTarget(string) (string, error)          { return s.target, nil }
func (s *store) LayerBigData(id, key string) (io.ReadCloser, error) {
	data, found := s.data[key]
	if !found {
		return nil, os.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}
func (s *store) SetLayerBigData(id, key string, data io.Reader) error {
	content, err := io.ReadAll(data)
	s.data[key] = content
	return err
}

func annotations(path string) map[string]string {
	content, err := os.ReadFile(path)
	check(err)
	found := map[string]string{}
	check(json.Unmarshal(content, &found))
	return found
}

// Pulls the layer BLOB in parts into the directory DEST. Returns too how many bytes of it were asked for; the errors: of the metadata, and of
// the pull itself.
func pull(s *store, blob, annotationsPath, dest string, options *archive.TarOptions) (output graphdriver.DriverWithDifferOutput, fetched uint64, metadataErr, pullErr error) {
	file, err := os.Open(blob)
	check(err)
	defer file.Close()
	status, err := file.Stat()
	check(err)
	source := &registry{file: file}
	differ, metadataErr := chunked.NewDiffer(context.Background(), s, digest.Digest(""), status.Size(), annotations(annotationsPath), source)
	if metadataErr != nil {
		return
	}
	defer differ.Close()
	output, pullErr = differ.ApplyDiff(dest, options, &graphdriver.DifferOptions{Format: graphdriver.DifferOutputFormatDir, StagingDirectory: dest})
	return output, source.bytes, nil, pullErr
}

func apply(s *store, blob, annotationsPath, dest string) (graphdriver.DriverWithDifferOutput, uint64) {
	output, fetched, metadataErr, pullErr := pull(s, blob, annotationsPath, dest, &archive.TarOptions{})
	check(metadataErr)
	check(pullErr)
	return output, fetched
}

// The digest of the archive, put together from the tree and the tar-split.
func archiveDigest(tarSplit *os.File, dest string) string {
	_, err := tarSplit.Seek(0, io.SeekStart)
	check(err)
	sum := sha256.New()
	stream := asm.NewOutputTarStream(tarsplit.NewPathFileGetter(dest), tarsplit.NewJSONUnpacker(tarSplit))
	_, err = io.Copy(sum, stream)
	check(err)
	check(stream.Close())
	return fmt.Sprintf("sha256:%x", sum.Sum(nil))
}

func main() {
	if len(os.Args) == 2 {
		map[string]func(){"headers": headers, "judge": judge}[os.Args[1]]()
		return
	}
	if len(os.Args) == 5 && os.Args[1] == "write" {
		write(os.Args[2], os.Args[3], os.Args[4])
		return
	}
	folder, err := os.MkdirTemp(filepath.Dir(os.Args[4]), "store")
	check(err)
	defer os.RemoveAll(folder)
	s := &store{folder: folder, data: map[string][]byte{}}
	if len(os.Args) == 8 {
		old, _ := apply(&store{folder: folder, data: map[string][]byte{}}, os.Args[5], os.Args[6], os.Args[7])
		s.data, s.target, s.layers = old.BigData, os.Args[7], []storage.Layer{{ID: "old"}}
	}
	output, fetched := apply(s, os.Args[2], os.Args[3], os.Args[4])
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"fetched": fetched, "size": output.Size, "diff_id": archiveDigest(output.TarSplit, os.Args[4]),
	}))
}

func write(tar, blob, annotationsPath string) {
	source, err := os.Open(tar)
	check(err)
	target, err := os.Create(blob)
	check(err)
	metadata := map[string]string{}
	level := 3
	writer, err := compressor.ZstdCompressor(target, metadata, &level)
	check(err)
	_, err = io.Copy(writer, source)
	check(err)
	check(writer.Close())
	check(target.Close())
	content, err := json.Marshal(metadata)
	check(err)
	check(os.WriteFile(annotationsPath, content, 0o644))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
