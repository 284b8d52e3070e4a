package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/wasmpod/wasmpod/runtime"
)

func newCheckCommand(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what this host can enforce and measure, and why not where it cannot",
		Example: `  wasmpod check
  wasmpod check -o json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			checks := runtime.Checks(a.config)
			return a.print(output, checks, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "WHAT\tSTATUS\tBY\tTO DO")
				for _, c := range checks {
					by := c.Mechanism
					if c.Why != "" {
						by += "; not better because: " + c.Why
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.Name, c.Status, by, c.Hint)
				}
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}
