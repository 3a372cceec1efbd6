package cli

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

func (a *app) userTokenCommand() *cobra.Command {
	return group("token", "Manage users' tokens", `  swarmctl user token create --expires 720h alice
  swarmctl user token ls alice
  swarmctl user token rm alice 3k9x…`, a.userTokenCreateCommand(), a.userTokenListCommand(), a.userTokenRemoveCommand())
}

func (a *app) userTokenCreateCommand() *cobra.Command {
	var quiet bool
	var expires time.Duration
	cmd := &cobra.Command{
		Use:                   "create [OPTIONS] NAME",
		Short:                 "Make another token for a user",
		Example:               "  swarmctl user token create --expires 720h alice",
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Users),
		RunE: func(cmd *cobra.Command, args []string) error {
			var r v1.UserTokenRequest
			switch {
			case expires < 0:
				return fmt.Errorf("--expires %s is in the past: want how long the token is good for", expires)
			case expires > 0:
				r.Expires = a.Now().Add(expires).UTC().Truncate(time.Second)
			}
			c, err := a.daemon()
			if err != nil {
				return err
			}
			token, err := c.CreateUserToken(cmd.Context(), args[0], r)
			if err != nil {
				return apiError(err, v1.KindUser, args[0])
			}
			if quiet {
				a.printf("%s\n", token.Token)
				return nil
			}
			return a.printLogin(cmd.Context(), c, args[0], token.Token)
		},
	}
	s := cmd.Flags()
	s.BoolVarP(&quiet, "quiet", "q", false, "Only display the token")
	s.DurationVar(&expires, "expires", 0, "How long the token is good for (0 is for ever)")
	return cmd
}

// userTokenRow is what a template of user token ls sees.
type userTokenRow struct {
	CreatedAt string
	Expires   string
	ID        string
}

var userTokenTable = table{
	columns:  `{{.ID}}\t{{.CreatedAt}}\t{{.Expires}}`,
	headings: map[string]string{"ID": "ID", "CreatedAt": "CREATED", "Expires": "EXPIRES"},
}

func (a *app) userTokenListCommand() *cobra.Command {
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use: "ls [OPTIONS] NAME", Aliases: []string{"list"},
		Short:                 "List the tokens of a user",
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Users),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			u, err := client.Get(cmd.Context(), c, v1.Users, args[0])
			if err != nil {
				return apiError(err, v1.KindUser, args[0])
			}
			var rows []any
			for _, t := range convertUser(u).Tokens {
				rows = append(rows, userTokenRow{CreatedAt: ago(a.Now(), t.CreatedAt), Expires: until(a.Now(), t.Expires), ID: t.ID})
			}
			return userTokenTable.write(a.Out, format, quiet, rows)
		},
	}
	s := cmd.Flags()
	s.StringVar(&format, "format", "", `Format output: "table", "table TEMPLATE", "json", or a Go template`)
	s.BoolVarP(&quiet, "quiet", "q", false, "Only display IDs")
	return cmd
}

func (a *app) userTokenRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME TOKEN-ID [TOKEN-ID...]", Aliases: []string{"remove"},
		Short:                 "End one or more tokens of a user",
		Args:                  minArgs(2),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Users),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			var errs []error
			for _, id := range args[1:] {
				err := c.RemoveUserToken(cmd.Context(), args[0], id)
				switch {
				case client.Status(err) == http.StatusNotFound:
					errs = append(errs, fmt.Errorf("user %s has no token %s", args[0], id))
				case err != nil:
					errs = append(errs, daemonError(err))
				default:
					a.printf("%s\n", id)
				}
			}
			return errors.Join(errs...)
		},
	}
}
