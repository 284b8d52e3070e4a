package seeds

import (
	"context"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	run     = flag.Bool("seeds", false, "run the seeds; with -short those that take less than a minute")
	wasmpod = flag.String("wasmpod", "../../bin/wasmpod", "the binary to run them with; its images lie in the folder beside it")
)

const (
	manifests = "../../wasm-examples/seeds"
	imageList = "../../wasm-examples/images.txt"
)

// scenario is one or more seeds, what is run beside them, and what they must do.
type scenario struct {
	name string // of the seed, without .fixed.yaml
	// more are manifests beside the seed, by file name.
	more map[string]string
	// stores are image stores that come before the shipped one.
	stores func(t *testing.T) string
	slow   bool // takes more than a minute
	root   bool // writes where only root may
	check  func(t *testing.T, r *running)
}

// TestSeeds runs them all at a time: they wait most of it.
func TestSeeds(t *testing.T) {
	if !*run {
		t.Skip("skipped: run by make test-seeds, for it takes minutes")
	}
	bin, err := filepath.Abs(*wasmpod)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("%v: make build guests", err)
	}
	data := dataDir(t)
	compile(t, bin, data)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			if s.slow && testing.Short() {
				t.Skip("skipped: takes more than a minute; make test-seeds runs it")
			}
			if s.root && os.Geteuid() != 0 {
				t.Skip("skipped: this manifest writes to a directory of the host that only root may write to")
			}
			t.Parallel()
			s.check(t, s.start(t, bin, data))
		})
	}
}

// dataDir is kept from run to run, for the compiled code in it.
func dataDir(t *testing.T) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return t.TempDir()
	}
	return filepath.Join(cache, "wasmpod-seeds")
}

// compile starts every image once, one after the other, so that no timeline has
// the compilation of another seed's image in it.
func compile(t *testing.T, bin, data string) {
	begin := time.Now()
	for _, image := range named(t) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		// What they make of the flag is all the same.
		cmd := exec.CommandContext(ctx, bin, "run", "--data-dir", data, "--timeout", "2m", "-q", image, "--", "--help")
		out, err := cmd.CombinedOutput()
		tooLate := ctx.Err() != nil
		cancel()
		if tooLate || strings.Contains(string(out), "cannot start") {
			t.Fatalf("%s: %v\n%s", image, err, out)
		}
	}
	t.Logf("all images of the seeds compiled in %v", time.Since(begin).Round(time.Second/10))
}

// named are the images that the valid seeds name.
func named(t *testing.T) (images []string) {
	files, err := filepath.Glob(filepath.Join(manifests, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !strings.Contains(file, ".fixed.") && !strings.Contains(file, "24-") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			for _, part := range strings.Split(line, ",") {
				key, value, ok := strings.Cut(strings.Trim(part, " \t\n-{}[]\""), ":")
				value, _, _ = strings.Cut(value, "#")
				value = strings.Trim(value, " \t\n\"{}[]")
				if ok && strings.Trim(key, "\" ") == "image" && value != "" && !slices.Contains(images, value) {
					images = append(images, value)
				}
			}
		}
	}
	if len(images) < 10 {
		t.Fatalf("only %q are named in %s", images, manifests)
	}
	return images
}

// Every image that a seed names is one that make guests makes.
func TestImagesAreListed(t *testing.T) {
	text, err := os.ReadFile(imageList)
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(line, "\t")
		listed[name] = true
	}
	for _, image := range named(t) {
		if !strings.Contains(image, ":") {
			image += ":latest"
		}
		if !listed[image] {
			t.Errorf("%s is in no line of %s", image, imageList)
		}
	}
}

// Every seed that is valid is in a scenario.
func TestEverySeedIsRun(t *testing.T) {
	files, err := fs.Glob(os.DirFS(manifests), "*.fixed.*")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d seeds, %v", len(files), err)
	}
	for _, file := range files {
		name, _, _ := strings.Cut(file, ".fixed.")
		if !slices.ContainsFunc(scenarios, func(s scenario) bool { return strings.HasPrefix(s.name, name) }) {
			t.Errorf("%s is not run", file)
		}
	}
}
