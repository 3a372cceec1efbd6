package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// usageError is a line whose flags make no sense, with how to write it: exit status 125, as Docker's.
func usageError(cmd *cobra.Command, format string, args ...any) error {
	return &exitError{code: 125, text: withUsage(cmd, format, args...)}
}

// countError is a line with too few or too many arguments: exit status 1, as Docker's.
func countError(cmd *cobra.Command, format string, args ...any) error {
	return &exitError{code: 1, text: withUsage(cmd, format, args...)}
}

func withUsage(cmd *cobra.Command, format string, args ...any) string {
	return fmt.Sprintf(format, args...) + fmt.Sprintf("\n\nUsage:  %s\n\nRun '%s --help' for more information", cmd.UseLine(), cmd.CommandPath())
}

// a command that is not there is what is wrong, and not the first of its flags.
func flagError(cmd *cobra.Command, err error) error {
	if cmd.HasSubCommands() && cmd.Flags().NArg() > 0 {
		return unknownCommand(cmd, cmd.Flags().Arg(0))
	}
	return usageError(cmd, "%v", err)
}

func unknownCommand(cmd *cobra.Command, name string) error {
	return usageError(cmd, "%s: unknown command: %s %s", cmd.Root().Name(), cmd.CommandPath(), name)
}

// group is a command that only holds others.
func group(use, short, example string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Example: example, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(commands...)
	return cmd
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return countError(cmd, "%s: '%s' accepts no arguments", cmd.Root().Name(), cmd.CommandPath())
}

func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return countError(cmd, "%s: '%s' requires %d %s", cmd.Root().Name(), cmd.CommandPath(), n, plural("argument", n))
	}
}

func minArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return countError(cmd, "%s: '%s' requires at least %d %s", cmd.Root().Name(), cmd.CommandPath(), n, plural("argument", n))
	}
}

func rangeArgs(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= low && len(args) <= high {
			return nil
		}
		return countError(cmd, "%s: '%s' requires at least %d and at most %d %s", cmd.Root().Name(), cmd.CommandPath(), low, high, plural("argument", high))
	}
}

func plural(word string, n int) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
