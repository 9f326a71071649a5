package ledger

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestReportJSONRoundTrip(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := Report{
		Name: "n", From: at, To: at.Add(time.Second), Writers: 2, Sent: 9, Acknowledged: 5, Failed: 4, Unknown: 3,
		Checked: true, Committed: 1, Lost: 1, Surplus: 2, Stall: 3 * time.Second, Silence: 4 * ms, P50: 5 * ms, P99: 6 * ms,
		ServerGap: 7 * time.Microsecond, InFlight: 2, BySQLState: map[string]int{"57P01": 4}, FirstError: "e",
		Timelines: []uint32{1, 2}, Back: 8, Stale: 9,
		Reads: Reads{
			Readers: 1, Sent: 9, Answered: 8, Failed: 1, Back: 2, Stale: 3, Behind: 4, Lag: 5 * ms, Stall: 6 * ms, Silence: 7 * ms,
			P50: 8 * ms, P99: 9 * ms, BySQLState: map[string]int{"40001": 1}, FirstError: "r",
		},
		Notes: []Note{{at.Add(ms), "noted"}},
		Table: "t", Run: 1<<48 - 1,
	}
	for i, field := range reflect.VisibleFields(reflect.TypeFor[Report]()) {
		if field.IsExported() && field.Name != "Events" && reflect.ValueOf(want).Field(i).IsZero() {
			t.Errorf("the test leaves %s out", field.Name)
		}
	}
	event := want
	want.Events = []Report{event}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Report
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %#v\nwant %#v", got, want)
	}
	for _, wrong := range []string{`{"stall":"soon"}`, `{"reads":{"lag":"soon"}}`} {
		if err := json.Unmarshal([]byte(wrong), &got); err == nil {
			t.Errorf("%s is accepted", wrong)
		}
	}
	if b, err = json.Marshal(Report{}); err != nil || strings.Contains(string(b), "reads") {
		t.Errorf("%s, %v: a run without readers has none", b, err)
	}
}

func TestReportStringUnchecked(t *testing.T) {
	s := Report{Sent: 3}.String()
	if !strings.Contains(s, "not checked") || !strings.Contains(s, "?") {
		t.Errorf("an unchecked report looks checked:\n%s", s)
	}
}

func TestShort(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0s"},
		{1234567, "1.2ms"},
		{12345678, "12ms"},
		{1234567890, "1.235s"},
		{12345678901, "12.3s"},
	} {
		if got := short(c.d); got != c.want {
			t.Errorf("short(%d) = %s, want %s", c.d, got, c.want)
		}
	}
}
