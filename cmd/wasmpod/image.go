package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/wasmpod/wasmpod/runtime"
	"github.com/wasmpod/wasmpod/runtime/image"
)

func newImageCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Pull, push, build, load, save and inspect images, and remove them",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newImagePullCommand(a), newImagePushCommand(a), newImageBuildCommand(a), newImageLoadCommand(a), newImageSaveCommand(a),
		newImageTagCommand(a), newImageListCommand(a), newImageInspectCommand(a), newImageRemoveCommand(a), newImagePruneCommand(a), newImageVerifyCommand(a),
	)
	return cmd
}

func newImageBuildCommand(a *app) *cobra.Command {
	var spec image.BuildSpec
	var files []string
	var containerfile string
	forms := []string{image.FormWASI, image.FormArtifact, image.FormCompat}
	cmd := &cobra.Command{
		Use:   "build -t NAME [flags] FILE.wasm | build -t NAME -f CONTAINERFILE [DIR]",
		Short: "Make an image of a module, and files beside it",
		Long: `Build makes an OCI image of a module and puts it into the local store, and
prints its digested reference. The same input gives the same bytes, on every
machine. The image has one of three forms:

  wasi      an ordinary image for the platform wasip1/wasm (or wasi/wasm)
  artifact  the CNCF's wasm artifact: the module itself, and nothing else
  compat    an image for Linux whose annotation says that it holds a module
            (module.wasm.image/variant=compat), for tools that know no others

Instead of flags, a file in the words of a Containerfile can say what is in it:
FROM scratch, COPY, ENTRYPOINT, CMD, ENV, WORKDIR, USER, LABEL, EXPOSE and
STOPSIGNAL.`,
		Example: `  wasmpod image build -t hello hello.wasm
  wasmpod image build -t web:v1 --file ./site:/srv/site --workdir /srv --cmd --listen=:8080 server.wasm
  wasmpod image build -t registry.example.com/hello:v1 --form artifact hello.wasm
  wasmpod image build -t web:v1 -f Containerfile .`,
		Args: func(cmd *cobra.Command, args []string) error {
			if containerfile == "" && len(args) != 1 || len(args) > 1 {
				return invalid("image build makes an image of one module: name FILE.wasm, or a description with -f (see 'wasmpod image build --help')")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(spec.Refs) == 0 {
				return invalid("an image needs a name: -t NAME")
			}
			if containerfile != "" {
				dir := "."
				if len(args) == 1 {
					dir = args[0]
				}
				if err := addContainerfile(&spec, containerfile, dir, a.stdin); err != nil {
					return err
				}
			} else {
				spec.Module = args[0]
			}
			for _, f := range files {
				host, guest, ok := strings.Cut(f, ":")
				if !ok || host == "" || !strings.HasPrefix(guest, "/") {
					return invalid("--file: %q is not HOST:GUEST with an absolute GUEST path", f)
				}
				spec.Files = append(spec.Files, image.File{Host: host, Guest: guest})
			}
			images, err := runtime.OpenImages(a.config)
			if err != nil {
				return err
			}
			img, err := images.Build(cmd.Context(), spec)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.stdout, img.ID)
			return err
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&spec.Refs, "tag", "t", nil, "name for the image; may be repeated")
	f.StringVarP(&containerfile, "containerfile", "f", "", "description of the image (-: standard input)")
	f.StringVar(&spec.Form, "form", image.FormWASI, "form of the image: "+strings.Join(forms, ", "))
	f.StringVar(&spec.Platform, "platform", "", "platform of the image: wasip1/wasm (the default) or wasi/wasm; for compat, linux/amd64 (the default) or another")
	f.StringArrayVar(&files, "file", nil, "put a file or directory into the image, HOST:GUEST")
	f.StringArrayVar(&spec.Entrypoint, "entrypoint", nil, "entrypoint, an argument a flag (default: the module)")
	f.StringArrayVar(&spec.Cmd, "cmd", nil, "default arguments, an argument a flag")
	f.StringArrayVarP(&spec.Env, "env", "e", nil, "environment variable, KEY=VALUE")
	f.StringVar(&spec.WorkingDir, "workdir", "", "working directory")
	f.StringVar(&spec.User, "user", "", "user that the image runs as")
	f.StringToStringVar(&spec.Labels, "label", nil, "label, KEY=VALUE")
	_ = cmd.RegisterFlagCompletionFunc("form", cobra.FixedCompletions(forms, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// addContainerfile adds what flags do not say.
func addContainerfile(spec *image.BuildSpec, file, dir string, stdin io.Reader) error {
	var text []byte
	var err error
	if file == "-" {
		text, err = io.ReadAll(io.LimitReader(stdin, 2<<20))
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return err
	}
	read, err := image.ParseContainerfile(string(text), dir)
	if err != nil {
		return invalid("%s: %v", file, err)
	}
	read.Refs, read.Form = spec.Refs, spec.Form
	if spec.Platform != "" {
		read.Platform = spec.Platform
	}
	if len(spec.Entrypoint) > 0 {
		read.Entrypoint = spec.Entrypoint
	}
	if len(spec.Cmd) > 0 {
		read.Cmd = spec.Cmd
	}
	read.Env = append(read.Env, spec.Env...)
	if spec.WorkingDir != "" {
		read.WorkingDir = spec.WorkingDir
	}
	if spec.User != "" {
		read.User = spec.User
	}
	if read.Labels == nil {
		read.Labels = map[string]string{}
	}
	for k, v := range spec.Labels {
		read.Labels[k] = v
	}
	if len(read.Labels) == 0 {
		read.Labels = nil
	}
	*spec = read
	return nil
}

func newImageListCommand(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the images of the local store",
		Example: "  wasmpod image ls\n  wasmpod image ls -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			images, err := runtime.OpenImages(a.config)
			if err != nil {
				return err
			}
			list, err := images.List(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(output, list, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "NAME\tDIGEST\tSIZE")
				for _, i := range list {
					_, digest, _ := strings.Cut(i.ID, "@")
					fmt.Fprintf(w, "%s\t%.19s\t%d\n", i.Ref, digest, i.Size)
				}
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func newImageInspectCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Print what an image asks for, and what its module needs, as JSON",
		Long: `Inspect prints an image's configuration, form and platform, and of its module
the size, the memory, the functions that it imports, and what it exports.`,
		Example:           "  wasmpod image inspect hello\n  wasmpod image inspect ./app.wasm | jq .ModuleInfo.Imports",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := runtime.OpenImages(a.config)
			if err != nil {
				return err
			}
			details, err := images.Details(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print("json", details, nil)
		},
	}
}

func newImageRemoveCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "rm IMAGE...",
		Short:             "Remove images from the local store",
		Example:           "  wasmpod image rm hello web:v1",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := runtime.OpenImages(a.config)
			if err != nil {
				return err
			}
			for _, ref := range args {
				if err := images.Remove(cmd.Context(), ref); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "", "form of the output: json, yaml, or empty for a table")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
}

// print writes v as JSON or YAML, or as the table that the function writes.
func (a *app) print(output string, v any, table func(*tabwriter.Writer)) error {
	switch output {
	case "json":
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "yaml":
		b, err := yaml.Marshal(v)
		if err == nil {
			_, err = a.stdout.Write(b)
		}
		return err
	case "":
		w := tabwriter.NewWriter(a.stdout, 0, 0, 3, ' ', 0)
		table(w)
		return w.Flush()
	}
	return invalid("--output: %q is neither json nor yaml", output)
}
