package pooler

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// Show runs SHOW what and decodes the rows into T, a struct whose fields of type string, bool, int, int64 or
// uint64 have a tag with the name of their column: `show:"cl_active"`. Columns are found by name and unknown ones
// are skipped, so that a newer PgBouncer works. A tagged column that is absent is an error, unless the tag says
// `show:"id,optional"`; the field is then zero. NULL is the zero value.
func Show[T any](ctx context.Context, c *Console, what string) ([]T, error) {
	rows, err := c.ShowRows(ctx, what)
	if err != nil {
		return nil, err
	}
	columns, err := mapColumns(reflect.TypeFor[T](), rows.Columns)
	if err != nil {
		return nil, fmt.Errorf("SHOW %s: %w", what, err)
	}
	out := make([]T, len(rows.Values))
	for i, row := range rows.Values {
		v := reflect.ValueOf(&out[i]).Elem()
		for _, col := range columns {
			if row[col.position] == nil {
				continue
			}
			if err := setField(v.Field(col.field), string(row[col.position])); err != nil {
				return nil, fmt.Errorf("SHOW %s: column %s: %w", what, rows.Columns[col.position], err)
			}
		}
	}
	return out, nil
}

type columnField struct{ position, field int }

func mapColumns(t reflect.Type, names []string) ([]columnField, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%w: %s is not a struct", ErrInvalid, t)
	}
	var columns []columnField
	for i := range t.NumField() {
		tag, tagged := t.Field(i).Tag.Lookup("show")
		if !tagged {
			continue
		}
		name, optional := strings.CutSuffix(tag, ",optional")
		position := slices.Index(names, name)
		if mutant.Is("law13-columns-by-name") {
			position = min(i, len(names)-1)
		}
		if position < 0 {
			if optional {
				continue
			}
			return nil, fmt.Errorf("this PgBouncer has no column %q (it has %s)", name, strings.Join(names, ", "))
		}
		columns = append(columns, columnField{position, i})
	}
	return columns, nil
}

func setField(f reflect.Value, text string) error {
	switch f.Kind() {
	case reflect.String:
		f.SetString(text)
	case reflect.Bool:
		f.SetBool(text == "1" || text == "yes")
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		f.SetInt(n)
	case reflect.Uint64:
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return err
		}
		f.SetUint(n)
	default:
		return fmt.Errorf("%w: a field of type %s", ErrInvalid, f.Type())
	}
	return nil
}

// DatabaseRow is a row of SHOW DATABASES.
type DatabaseRow struct {
	Name     string `show:"name"`
	Host     string `show:"host"` // empty: a Unix socket
	Port     string `show:"port"`
	Paused   bool   `show:"paused"` // by PAUSE db or KILL db; a global PAUSE does not show here
	Disabled bool   `show:"disabled"`
}

// PoolRow is a row of SHOW POOLS: the connections of one user to one database.
type PoolRow struct {
	Database      string `show:"database"`
	User          string `show:"user"`
	ClientActive  int    `show:"cl_active"`
	ClientWaiting int    `show:"cl_waiting"`
	ServerActive  int    `show:"sv_active"`
	ServerTested  int    `show:"sv_tested"`
	ServerLogin   int    `show:"sv_login"`
	MaxWait       int    `show:"maxwait"` // seconds that the oldest waiting client has waited
	PoolMode      string `show:"pool_mode"`
}

// SocketRow is a row of SHOW CLIENTS or SHOW SERVERS.
type SocketRow struct {
	User        string `show:"user"`
	Database    string `show:"database"`
	State       string `show:"state"`
	Addr        string `show:"addr"` // the other side; "unix" for a Unix socket
	Port        string `show:"port"`
	CloseNeeded bool   `show:"close_needed"` // to be closed when it is free, never to be used again
	Ptr         string `show:"ptr"`
	Link        string `show:"link"`                      // the Ptr of the server of a client, of the client of a server
	ID          string `show:"id,optional"`               // 1.24 and later; what KILL_CLIENT takes
	Application string `show:"application_name,optional"` // as the client says
}
