package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	corev1 "k8s.io/api/core/v1"

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
		newImageTagCommand(a), newImageListCommand(a), newImageInspectCommand(a), newImageRemoveCommand(a), newImagePruneCommand(a),
	)
	return cmd
}

func newImageBuildCommand(a *app) *cobra.Command {
	var spec image.BuildSpec
	var files []string
	cmd := &cobra.Command{
		Use:   "build -t NAME [flags] FILE.wasm",
		Short: "Make an image of a module, and files beside it",
		Long: `Build makes an OCI image (platform wasip1/wasm) of a module and puts it into
the local store. The same input gives the same bytes.`,
		Example: `  wasmpod image build -t hello hello.wasm
  wasmpod image build -t web:v1 --file ./site:/srv/site --workdir /srv --cmd --listen=:8080 server.wasm`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(spec.Refs) == 0 {
				return invalid("an image needs a name: -t NAME")
			}
			for _, f := range files {
				host, guest, ok := strings.Cut(f, ":")
				if !ok || host == "" || !strings.HasPrefix(guest, "/") {
					return invalid("--file: %q is not HOST:GUEST with an absolute GUEST path", f)
				}
				spec.Files = append(spec.Files, image.File{Host: host, Guest: guest})
			}
			spec.Module = args[0]
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
	f.StringArrayVar(&files, "file", nil, "put a file or directory into the image, HOST:GUEST")
	f.StringArrayVar(&spec.Entrypoint, "entrypoint", nil, "entrypoint, an argument a flag (default: the module)")
	f.StringArrayVar(&spec.Cmd, "cmd", nil, "default arguments, an argument a flag")
	f.StringArrayVarP(&spec.Env, "env", "e", nil, "environment variable, KEY=VALUE")
	f.StringVar(&spec.WorkingDir, "workdir", "", "working directory")
	f.StringVar(&spec.User, "user", "", "user that the image runs as")
	f.StringToStringVar(&spec.Labels, "label", nil, "label, KEY=VALUE")
	return cmd
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
		Short: "Print what an image asks for, as JSON",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := runtime.OpenImages(a.config)
			if err != nil {
				return err
			}
			img, err := images.Resolve(cmd.Context(), args[0], corev1.PullIfNotPresent)
			if err != nil {
				return err
			}
			return a.print("json", img, nil)
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
	cmd.Flags().StringVarP(output, "output", "o", "", "form of the output: json, or empty for a table")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json"}, cobra.ShellCompDirectiveNoFileComp))
}

// print writes v as JSON, or as the table that the function writes.
func (a *app) print(output string, v any, table func(*tabwriter.Writer)) error {
	switch output {
	case "json":
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "":
		w := tabwriter.NewWriter(a.stdout, 0, 0, 3, ' ', 0)
		table(w)
		return w.Flush()
	}
	return invalid("--output: %q is not json", output)
}
