package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

func (a *app) userCommand() *cobra.Command {
	return group("user", "Manage the people who may speak to the swarm", `  swarmctl user create alice --role operate
  swarmctl user cert bob
  swarmctl user ls`,
		a.userCreateCommand(), a.userInspectCommand(), a.userListCommand(), a.userUpdateCommand(), a.userRemoveCommand(),
		a.userTokenCommand(), a.userCertCommand())
}

// roleFlag is a flag for the role of a user.
func roleFlag(cmd *cobra.Command, standard string) *string {
	role := cmd.Flags().String("role", standard, `What the user may do: "view" (see everything but secrets and keys), "operate" (also change `+
		`services and what they use, and nodes' labels and availability), "admin" (everything)`)
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{string(v1.UserView), string(v1.UserOperate), string(v1.UserAdmin)},
		cobra.ShellCompDirectiveNoFileComp))
	return role
}

func parseRole(text string) (v1.UserRole, error) {
	switch role := v1.UserRole(strings.ToLower(text)); role {
	case v1.UserView, v1.UserOperate, v1.UserAdmin:
		return role, nil
	}
	return "", fmt.Errorf("invalid role %q, only view, operate and admin are supported", text)
}

func (a *app) userCreateCommand() *cobra.Command {
	var quiet, noToken bool
	var role *string
	labels := newList("list", parseLabel)
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] NAME",
		Short: "Create a user, and a token for it",
		Long:  "Create a user, and print a token that it logs in with. The token is printed this once: the swarm keeps only a hash of it.",
		Example: `  swarmctl user create alice --role operate
  swarmctl user create --no-token bob`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			rank, err := parseRole(*role)
			if err != nil {
				return err
			}
			c, err := a.daemon()
			if err != nil {
				return err
			}
			u := &v1.User{Spec: &v1.UserSpec{Role: rank}}
			u.Meta.Name, u.Meta.Labels = args[0], toMap(labels.all)
			created, warnings, err := client.Create(cmd.Context(), c, v1.Users, u)
			if err != nil {
				return daemonError(err)
			}
			a.warn(warnings)
			if noToken {
				a.printf("%s\n", created.Meta.Name)
				return nil
			}
			token, err := c.CreateUserToken(cmd.Context(), created.Meta.ID, v1.UserTokenRequest{})
			if err != nil {
				return fmt.Errorf("user %s was created, but without a token: %w", args[0], daemonError(err))
			}
			if quiet {
				a.printf("%s\n", token.Token)
				return nil
			}
			a.printf("User %s created with the role %s.\n\n", created.Meta.Name, rank)
			return a.printLogin(cmd.Context(), c, created.Meta.Name, token.Token)
		},
	}
	role = roleFlag(cmd, string(v1.UserView))
	s := cmd.Flags()
	s.VarP(labels, "label", "l", "User labels")
	s.BoolVarP(&quiet, "quiet", "q", false, "Only display the token")
	s.BoolVar(&noToken, "no-token", false, `Make no token, for a user who gets a certificate ("swarmctl user cert")`)
	return cmd
}

// printLogin says how a user logs in with its token. The token is printed whatever else goes wrong: nobody can tell it again.
func (a *app) printLogin(ctx context.Context, c *client.Client, name, token string) error {
	host, err := joinHost(ctx, c)
	digest := ""
	if err == nil {
		digest, err = rootDigest(ctx, c)
	}
	if err == nil {
		a.printf("To log in as %s, run the following command anywhere, and enter the token when asked:\n\n    swarmctl login --ca-digest %s %s\n\n",
			name, digest, host)
	}
	a.printf("The token of %s is shown only now:\n\n    %s\n\n", name, token)
	return err
}

// userView is what user inspect prints.
type userView struct {
	ID string
	dockerMeta
	Name   string
	Labels map[string]string `json:",omitempty"`
	Role   string
	Tokens []userTokenView `json:",omitempty"`
}

type userTokenView struct {
	ID        string
	CreatedAt time.Time `json:",omitzero"`
	Expires   time.Time `json:",omitzero"`
}

func convertUser(u *v1.User) *userView {
	v := &userView{ID: u.Meta.ID, dockerMeta: convertMeta(&u.Meta), Name: u.Meta.Name, Labels: u.Meta.Labels}
	if u.Spec != nil {
		v.Role = string(u.Spec.Role)
		for _, t := range u.Spec.Tokens {
			v.Tokens = append(v.Tokens, userTokenView{t.ID, t.CreatedAt, t.Expires})
		}
	}
	return v
}

func (a *app) userInspectCommand() *cobra.Command {
	var f inspectFlags
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] NAME [NAME...]",
		Short:                 "Display detailed information on one or more users",
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Users),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			return inspect(a.Out, f.format, args, func(ref string) (any, error) {
				u, err := client.Get(cmd.Context(), c, v1.Users, ref)
				if err != nil {
					return nil, apiError(err, v1.KindUser, ref)
				}
				return convertUser(u), nil
			})
		},
	}
	f.add(cmd, false)
	return cmd
}

// userRow is what a template of user ls sees.
type userRow struct {
	CreatedAt string
	ID        string
	Labels    string
	Name      string
	Role      string
	Tokens    int
}

var userTable = table{
	columns:  `{{.Name}}\t{{.Role}}\t{{.Tokens}}\t{{.CreatedAt}}`,
	headings: map[string]string{"ID": "ID", "Name": "NAME", "Role": "ROLE", "Tokens": "TOKENS", "CreatedAt": "CREATED", "Labels": "LABELS"},
}

func (a *app) userListCommand() *cobra.Command {
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"},
		Short:                 "List users",
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			users, err := client.List(cmd.Context(), c, v1.Users, nil)
			if err != nil {
				return daemonError(err)
			}
			byName(users)
			rows := make([]any, len(users))
			for i, u := range users {
				v := convertUser(u)
				rows[i] = userRow{CreatedAt: ago(a.Now(), v.CreatedAt), ID: v.ID, Labels: pairs(v.Labels), Name: v.Name, Role: v.Role, Tokens: len(v.Tokens)}
			}
			if quiet && format == "" {
				format = "{{.Name}}"
			}
			return userTable.write(a.Out, format, false, rows)
		},
	}
	s := cmd.Flags()
	s.StringVar(&format, "format", "", `Format output: "table", "table TEMPLATE", "json", or a Go template`)
	s.BoolVarP(&quiet, "quiet", "q", false, "Only display names")
	return cmd
}

func (a *app) userUpdateCommand() *cobra.Command {
	var role *string
	labels := edit[string]{add: newList("list", parseLabel), remove: newStrings()}
	cmd := &cobra.Command{
		Use:                   "update [OPTIONS] NAME",
		Short:                 "Update a user",
		Long:                  "Update a user. What its role no longer allows is refused from now on, also with the tokens and certificates that it has.",
		Example:               "  swarmctl user update --role admin alice",
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Users),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().NFlag() == 0 {
				return usageError(cmd, "%s: '%s' wants at least one flag that says what to update", cmd.Root().Name(), cmd.CommandPath())
			}
			err := a.updateUser(cmd.Context(), args[0], func(u *v1.User) error {
				if cmd.Flags().Changed("role") {
					rank, err := parseRole(*role)
					if err != nil {
						return err
					}
					u.Spec.Role = rank
				}
				u.Meta.Labels = editMap(u.Meta.Labels, labels)
				return nil
			})
			if err == nil {
				a.printf("%s\n", args[0])
			}
			return err
		},
	}
	role = roleFlag(cmd, "")
	cmd.Flags().Var(labels.add, "label-add", "Add or update a user label")
	cmd.Flags().Var(labels.remove, "label-rm", "Remove a label by its key")
	return cmd
}

// updateUser lets change work on a user and writes it back; where somebody else was faster, it begins again.
func (a *app) updateUser(ctx context.Context, ref string, change func(*v1.User) error) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		u, err := client.Get(ctx, c, v1.Users, ref)
		if err != nil {
			return apiError(err, v1.KindUser, ref)
		}
		if err := change(u); err != nil {
			return err
		}
		_, warnings, err := client.Update(ctx, c, v1.Users, u)
		if client.Status(err) == http.StatusConflict && try < maxConflicts && ctx.Err() == nil {
			continue
		}
		a.warn(warnings)
		return apiError(err, v1.KindUser, ref)
	}
}

func (a *app) userRemoveCommand() *cobra.Command {
	return removeCommand(a, v1.Users, "users", "Remove one or more users. Their tokens and certificates are refused from now on.")
}
