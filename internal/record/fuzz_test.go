package record_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
)

// FuzzDecode: whatever a value is, each kind of record is read or refused with the key's name; what was read is written
// such that it is read as the same, and a field that is not known yet changes nothing.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"v":1,"service":"write","address":"10.0.0.1:5432"}`, `{"v":1,"id":"op","kind":"switchover","phase":"hold","limit_ns":1000000000,"since":"2026-01-02T03:04:05+01:00"}`,
		`{"v":1,"abilities":["hold"],"epoch":{"system_id":"7","timeline":3,"created":9223372036854775808},"target":["[::1]:5432"],"since":"0001-01-01T00:00:00Z"}`,
		`{"v":1,"services":{"write":{"version":"v","envoys":["e"],"rejected":{"e":"why"}}}}`, `{"v":1,"id":"x","created":7,"limit_ns":-1}`,
		`{"v":2}`, `{"v":0}`, `{"v":"1"}`, `{"v":1,"address":"[fe80::1%eth0]:1"}`, `{"v":1,"since":"9999-12-31T23:59:59-23:59"}`, "{}", "null", "", "{", "\xff",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		again[record.Fleet](t, value)
		again[record.Pooler](t, value)
		again[record.Operation](t, value)
		again[record.ControlPlane](t, value)
		again[record.Hook](t, value)
		again[record.BeforeStop](t, value)
		again[record.History](t, value)
		again[record.Accepted](t, value)
	})
}

func again[T any, P interface {
	*T
	record.Record
}](t *testing.T, value []byte) {
	t.Helper()
	read := func(value []byte) (*T, error) {
		r, err := record.Decode[T](dcs.Entry{Key: "/k/e/y", Value: value})
		return &r, err
	}
	r, err := read(value)
	if err != nil {
		if !strings.Contains(err.Error(), "/k/e/y") {
			t.Errorf("%q: %v", value, err)
		}
		return
	}
	same := func(what string, value []byte) {
		t.Helper()
		got, err := read(value)
		if err != nil || !bytes.Equal(record.Encode(P(got)), record.Encode(P(r))) {
			t.Errorf("%q is %+v, %s %+v, %v", value, r, what, got, err)
		}
	}
	same("read again", record.Encode(P(r)))
	if text := strings.TrimLeft(string(value), " \t\r\n"); len(text) > 0 {
		same("with a field that is not known", []byte(`{"later":{"a":[1]},`+text[1:])) // it has a field, the version
	}
}
