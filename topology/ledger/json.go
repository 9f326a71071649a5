package ledger

import (
	"encoding/json"
	"time"
)

// span is a duration that reads "142ms" in JSON, as ParseDuration takes it.
type span time.Duration

func (s span) MarshalText() ([]byte, error) {
	return []byte(time.Duration(s).Round(time.Microsecond).String()), nil
}

func (s *span) UnmarshalText(b []byte) error {
	d, err := time.ParseDuration(string(b))
	*s = span(d)
	return err
}

// fields is Report without its methods.
type fields Report

// spans hides the durations of the Report that is embedded beside it.
type spans struct {
	*fields
	Stall     span `json:"stall"`
	Silence   span `json:"silence"`
	P50       span `json:"p50"`
	P99       span `json:"p99"`
	ServerGap span `json:"server_gap"`
}

// MarshalJSON writes durations as text, rounded to microseconds: "142.07ms".
func (r Report) MarshalJSON() ([]byte, error) {
	return json.Marshal(spans{
		(*fields)(&r),
		span(r.Stall), span(r.Silence), span(r.P50), span(r.P99), span(r.ServerGap),
	})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Report) UnmarshalJSON(b []byte) error {
	s := spans{fields: (*fields)(r)}
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	r.Stall, r.Silence = time.Duration(s.Stall), time.Duration(s.Silence)
	r.P50, r.P99 = time.Duration(s.P50), time.Duration(s.P99)
	r.ServerGap = time.Duration(s.ServerGap)
	return nil
}

// readFields is Reads without its methods.
type readFields Reads

// readSpans is to Reads what spans is to Report.
type readSpans struct {
	*readFields
	Lag     span `json:"lag"`
	Stall   span `json:"stall"`
	Silence span `json:"silence"`
	P50     span `json:"p50"`
	P99     span `json:"p99"`
}

// MarshalJSON writes durations as those of Report.
func (r Reads) MarshalJSON() ([]byte, error) {
	return json.Marshal(readSpans{
		(*readFields)(&r),
		span(r.Lag), span(r.Stall), span(r.Silence), span(r.P50), span(r.P99),
	})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Reads) UnmarshalJSON(b []byte) error {
	s := readSpans{readFields: (*readFields)(r)}
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	r.Lag, r.Stall, r.Silence = time.Duration(s.Lag), time.Duration(s.Stall), time.Duration(s.Silence)
	r.P50, r.P99 = time.Duration(s.P50), time.Duration(s.P99)
	return nil
}
