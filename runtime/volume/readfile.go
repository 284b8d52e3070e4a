package volume

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// maxEnvFile bounds a file of variables. It lies where guests write.
const maxEnvFile = 1 << 20

// ReadFile reads a file of a volume that has been set up, of at most 1 MiB. No link
// leads out of the volume.
func (m *Manager) ReadFile(pod types.UID, volume, name string) ([]byte, error) {
	v, ok := m.Volume(pod, volume)
	switch {
	case !ok || v.Image != "":
		return nil, fmt.Errorf("volume %q: %w", volume, fs.ErrNotExist)
	case v.Memory != nil:
		return v.Memory.ReadFile(name, maxEnvFile)
	}
	root, err := os.OpenRoot(v.Path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// A pipe would have the opener wait.
	f, err := root.OpenFile(strings.TrimLeft(name, "/"), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", name)
	}
	return ReadAtMost(f, maxEnvFile)
}

// ReadAtMost reads everything, or fails if that is more than so many bytes.
func ReadAtMost(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		return nil, fmt.Errorf("the file has more than %d bytes", most)
	}
	return b, err
}
