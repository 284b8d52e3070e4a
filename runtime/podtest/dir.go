package podtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// memoryDir is where Linux has a file system in memory. Making a pod means making
// and removing some fifty files and directories, each of which takes a hundred
// times as long on a disk.
const memoryDir = "/dev/shm"

// dataDir returns the directory that all tests of the user share. What pods write
// lies in memory where that is possible; compiled code is in the cache directory
// in any case.
var dataDir = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "wasmpod-podtest")
	if err := os.MkdirAll(filepath.Join(cache, "cache"), 0o700); err != nil {
		return "", err
	}
	dir := filepath.Join(memoryDir, fmt.Sprintf("wasmpod-podtest-%d", os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) || !isOurs(dir) {
		dir = cache
	} else if err := os.Symlink(filepath.Join(cache, "cache"), filepath.Join(dir, "cache")); err != nil && !os.IsExist(err) {
		return "", err
	}
	sweep(dir)
	return dir, nil
})

// isOurs: anybody may make a directory of that name in memoryDir. Only its owner
// can see into one of mode 0700, and change its mode.
func isOurs(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 {
		return false
	}
	return os.Chmod(dir, 0o700) == nil && (os.Getuid() != 0 || ownedByRoot(info))
}

const imagesPrefix = "images-"

// sweep removes the images of tests that were killed. The runtime does so with
// what their pods have left.
func sweep(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && strings.HasPrefix(e.Name(), imagesPrefix) && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}
