package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Tokens go to the server as parameters of statements. What follows keeps them out of its log, where log_statement, a duration
// of log_min_duration_statement or an error may put parameters, and out of pg_stat_activity, which shows the text of statements
// to everybody with the same login.

// hideParameters has the server log no parameters of this connection's statements. Those of statements that work, only who was
// given the right may hide (see allowHiding); without it they are logged as the server's administrator has set it.
func hideParameters(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, `do $$ begin
		set log_parameter_max_length_on_error = 0;
		set log_parameter_max_length = 0;
	exception
		when insufficient_privilege then
			set log_parameter_max_length_on_error = 0;
		when undefined_object then -- before Postgres 13 errors have no parameters
			null;
	end $$`)
	return err
}

// allowHiding lets mounts hide their parameters, if this login may allow it: that is a superuser's, from Postgres 15 on.
func allowHiding(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, `do $$ begin
		if current_setting('server_version_num')::int >= 150000 and
				(select rolsuper from pg_roles where rolname = current_user) then
			if not has_parameter_privilege('mediafs', 'log_parameter_max_length', 'set') then
				execute 'grant set on parameter log_parameter_max_length to mediafs';
			end if;
		end if;
	exception
		when unique_violation or internal_error then -- granted by somebody else meanwhile
			null;
	end $$`)
	return err
}

// asParameters makes sure that parameters are sent beside a statement, not in its text, whatever the address asks for.
func asParameters(config *pgx.ConnConfig) {
	if config.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol {
		config.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
	}
}
