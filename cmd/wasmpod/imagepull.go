package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wasmpod/wasmpod/runtime"
	"github.com/wasmpod/wasmpod/runtime/image"
)

func newImagePullCommand(a *app) *cobra.Command {
	var quiet, compile bool
	cmd := &cobra.Command{
		Use:   "pull IMAGE...",
		Short: "Bring images from their registries into the local store",
		Long: `Pull brings images from their registries into the local store, and prints their
digested references. Only what is missing is downloaded, and everything is
verified; a pull that was interrupted goes on where it ended. Of an image for
several platforms, the one for WebAssembly is chosen.

It logs in as 'docker login' or 'skopeo login' has set up. What the operator
pulls, every pod may use.`,
		Example: `  wasmpod image pull registry.example.com/team/app:v1
  wasmpod image pull --registry-mirrors docker.io=127.0.0.1:5000 busybox
  wasmpod image pull 127.0.0.1:5000/app@sha256:3b0ea14e…`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := runtime.OpenImages(a.config)
			if err != nil {
				return err
			}
			for _, ref := range args {
				p := a.newProgress(ref, quiet)
				img, err := images.Pull(cmd.Context(), ref, image.PullOptions{OnProgress: p.blob, Verify: true, Operator: true})
				p.close()
				if err != nil {
					return err
				}
				fmt.Fprintln(a.stdout, img.ID)
				if compile {
					if err := a.precompile(cmd.Context(), images, img); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "do not report progress on stderr")
	cmd.Flags().BoolVar(&compile, "compile", false, "also compile the module, so that its first start is fast")
	return cmd
}

func (a *app) precompile(ctx context.Context, images *image.Service, img image.Image) error {
	return runtime.Precompile(ctx, a.config, images, img)
}

func newImagePushCommand(a *app) *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "push IMAGE [NAME]",
		Short: "Bring an image of the local store to a registry",
		Long: `Push brings an image of the local store to the registry that its name says, or
that of another NAME, and prints its digested reference. It logs in as 'docker
login' or 'skopeo login' has set up.`,
		Example: `  wasmpod image push registry.example.com/team/app:v1
  wasmpod image push hello 127.0.0.1:5000/hello:v1`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := runtime.OpenImages(a.config)
			if err != nil {
				return err
			}
			to := args[len(args)-1]
			p := a.newProgress(to, quiet)
			id, err := images.Push(cmd.Context(), args[0], to, func(done, total int64) { p.blob(image.Progress{Done: done, Total: total}) })
			p.close()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.stdout, id)
			return err
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "do not report progress on stderr")
	return cmd
}

func newImageLoadCommand(a *app) *cobra.Command {
	var names []string
	var input string
	cmd := &cobra.Command{
		Use:   "load [-i FILE|DIR]",
		Short: "Bring images from an archive into the local store",
		Long: `Load brings the images of an archive (oci-archive or docker-archive, compressed
or not), or of a directory that is an OCI image layout, into the local store, and
prints their names.`,
		Example: `  wasmpod image load -i app.tar
  docker save app | wasmpod image load
  skopeo copy docker://registry.example.com/app oci-archive:app.tar && wasmpod image load -i app.tar -t app`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			images, err := runtime.OpenImages(a.config)
			if err != nil {
				return err
			}
			var r io.Reader
			if input == "-" {
				if f, ok := a.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
					return invalid("standard input is a terminal: name a file with -i, or redirect one")
				}
				r = a.stdin
			}
			list, err := images.Load(cmd.Context(), input, r, names...)
			if err != nil {
				return err
			}
			for _, img := range list {
				fmt.Fprintln(a.stdout, img.Ref)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&input, "input", "i", "-", "archive or directory (-: standard input)")
	cmd.Flags().StringArrayVarP(&names, "tag", "t", nil, "name for the image, if the archive holds one only; may be repeated")
	return cmd
}

func newImageSaveCommand(a *app) *cobra.Command {
	var output, format string
	formats := []string{image.FormatOCIArchive, image.FormatDockerArchive, image.FormatOCI}
	cmd := &cobra.Command{
		Use:   "save -o FILE|DIR IMAGE...",
		Short: "Write images of the local store to an archive",
		Long: `Save writes images, with all that they consist of, to an archive or, in the
format oci, to an OCI image layout in a directory. The same images give the same
bytes.`,
		Example: `  wasmpod image save -o app.tar app:v1
  wasmpod image save --format docker-archive app:v1 | docker load
  wasmpod image save --format oci -o ./layout app:v1 busybox`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(formats, format) {
				return invalid("--format: %q is none of %s", format, strings.Join(formats, ", "))
			}
			images, err := runtime.OpenImages(a.config)
			if err != nil {
				return err
			}
			if format == image.FormatOCI {
				if output == "-" {
					return invalid("--format oci writes a directory: name one with -o")
				}
				return images.SaveLayout(cmd.Context(), output, args...)
			}
			if output == "-" {
				if f, ok := a.stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
					return invalid("standard output is a terminal: name a file with -o, or redirect")
				}
				return images.Save(cmd.Context(), a.stdout, format, args...)
			}
			return writeWhole(output, func(w io.Writer) error { return images.Save(cmd.Context(), w, format, args...) })
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "-", "file, or directory for --format oci (-: standard output)")
	cmd.Flags().StringVar(&format, "format", image.FormatOCIArchive, "form of the archive: "+strings.Join(formats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// writeWhole writes a file that appears complete or not at all.
func writeWhole(file string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(dirOf(file), ".wasmpod-")
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

func dirOf(file string) string {
	if i := strings.LastIndexByte(file, os.PathSeparator); i >= 0 {
		return file[:i+1]
	}
	return "."
}

func newImageTagCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "tag IMAGE NAME",
		Short:             "Give an image of the local store a further name",
		Example:           "  wasmpod image tag hello registry.example.com/team/hello:v1",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := runtime.OpenImages(a.config)
			if err != nil {
				return err
			}
			return images.Tag(cmd.Context(), args[0], args[1])
		},
	}
}

func newImagePruneCommand(a *app) *cobra.Command {
	var o image.PruneOptions
	var output, size string
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove images that are not used, and what belongs to none",
		Long: `Prune removes what belongs to no image: unfinished downloads of last week,
unpacked layers, blobs. With flags it also removes images, those unused for
longest first. Running containers do not mind.`,
		Example: `  wasmpod image prune
  wasmpod image prune --unused-for 720h
  wasmpod image prune --to-size 500Mi --dry-run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if size != "" {
				q, err := parseBytes(size)
				if err != nil {
					return invalid("--to-size: %v", err)
				}
				o.ToSize = q
			}
			images, err := runtime.OpenImages(a.config)
			if err != nil {
				return err
			}
			pruned, err := images.Prune(cmd.Context(), o)
			if err != nil {
				return err
			}
			return a.print(output, pruned, func(w *tabwriter.Writer) {
				for _, ref := range pruned.Images {
					fmt.Fprintln(w, ref)
				}
				fmt.Fprintf(w, "%s reclaimed\n", humanBytes(pruned.Bytes))
			})
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.UnusedFor, "unused-for", 0, "remove images that no container was started from for so long")
	f.StringVar(&size, "to-size", "", "remove images until the store is not larger (500Mi, 2G)")
	f.BoolVar(&o.All, "all", false, "remove all images")
	f.BoolVar(&o.DryRun, "dry-run", false, "only say what would be removed")
	outputFlag(cmd, &output)
	return cmd
}

func newImageVerifyCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "verify",
		Short:   "Read the whole local store, and say what is damaged",
		Long:    `Verify reads every blob, image and unpacked layer of the local store. It changes nothing: 'wasmpod image pull' brings back what is damaged.`,
		Example: "  wasmpod image verify",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			images, err := runtime.OpenImages(a.config)
			if err != nil {
				return err
			}
			return images.Verify(cmd.Context())
		},
	}
}

// completeImages completes names of images of the local store.
func (a *app) completeImages(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if err := a.configure(cmd.Flags()); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	images, err := runtime.OpenImages(a.config)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	list, _ := images.List(context.Background())
	var names []string
	for _, img := range list {
		short := strings.TrimPrefix(strings.TrimPrefix(img.Ref, "docker.io/library/"), "docker.io/")
		names = append(names, strings.TrimSuffix(short, ":latest"))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// transferProgress tells on stderr how far a transfer is: in one line that changes, on
// a terminal, and else with a line every few seconds.
type transferProgress struct {
	w        io.Writer
	ref      string
	quiet    bool
	terminal bool
	every    time.Duration

	mu    sync.Mutex
	begin time.Time
	last  time.Time
	blobs map[string]image.Progress
	shown bool
}

func (a *app) newProgress(ref string, quiet bool) *transferProgress {
	p := &transferProgress{w: a.stderr, ref: ref, quiet: quiet, every: 5 * time.Second, begin: time.Now(), last: time.Now(), blobs: map[string]image.Progress{}}
	if f, ok := a.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.terminal, p.every = true, 100*time.Millisecond
	}
	return p
}

func (p *transferProgress) blob(b image.Progress) {
	if p.quiet {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blobs[b.Blob] = b
	if now := time.Now(); now.Sub(p.last) >= p.every {
		p.last = now
		p.show()
	}
}

// show is called with mu held.
func (p *transferProgress) show() {
	var done, total int64
	finished := 0
	for _, b := range p.blobs {
		done, total = done+b.Done, total+b.Total
		if b.Done == b.Total {
			finished++
		}
	}
	p.shown = true
	line := fmt.Sprintf("%s: %s of %s, %d of %d blobs, %s/s", p.ref, humanBytes(done), humanBytes(total), finished, len(p.blobs),
		humanBytes(int64(float64(done)/max(0.001, time.Since(p.begin).Seconds()))))
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", line)
		return
	}
	fmt.Fprintln(p.w, line)
}

func (p *transferProgress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown && p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// humanBytes is a size for people.
func humanBytes(n int64) string {
	f, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// parseBytes reads a quantity as Kubernetes writes them.
func parseBytes(s string) (int64, error) {
	q, err := resource.ParseQuantity(s)
	if err != nil || q.Sign() <= 0 {
		return 0, fmt.Errorf("%q is no size: want 500Mi or 2G", s)
	}
	return q.Value(), nil
}
