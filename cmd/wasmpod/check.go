package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime"
)

func newCheckCommand(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what this host can enforce and measure, and why not where it cannot",
		Example: `  wasmpod check
  wasmpod check -o json
  wasmpod check -o yaml`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			var all struct {
				Checks     []runtime.Check        `json:"checks"`
				Conditions []corev1.NodeCondition `json:"conditions"`
			}
			all.Checks = runtime.Checks(a.config)
			all.Conditions = runtime.Conditions(a.config, all.Checks)
			return a.print(output, all, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "WHAT\tSTATUS\tBY\tTO DO")
				for _, c := range all.Checks {
					by := c.Mechanism
					if c.Why != "" {
						by += "; not better because: " + c.Why
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.Name, c.Status, by, c.Hint)
				}
				fmt.Fprintln(w, "\nNODE CONDITION\tSTATUS\tREASON\tMESSAGE")
				for _, c := range all.Conditions {
					message := c.Message
					if strings.HasSuffix(string(c.Type), "Degraded") {
						message = "see above"
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.Type, c.Status, c.Reason, message)
				}
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}
